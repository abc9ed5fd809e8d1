"""The trained models that come with the package: a safetensors file and a card each."""

import hashlib
import json
import pkgutil
from pathlib import Path

import safetensors.torch
from torch import nn

from sparselab.method import unknown

from .lm import TinyLM
from .vit import TinyViT

FOLDER = Path(__file__).parent / "weights"
CLASSES = {"TinyLM": TinyLM, "TinyViT": TinyViT}


def names(*, folder: str | Path = FOLDER) -> list[str]:
    """The models in the folder, by name."""
    return sorted(path.stem for path in Path(folder).glob("*.json"))


def card(name: str, *, folder: str | Path = FOLDER) -> dict:
    """How a model came about: class, config, data, seed, steps, losses, command, checksum of the weights.

    Raises ValueError for an unknown name, naming the nearest, and for a card that cannot be read.
    """
    if name not in names(folder=folder):
        raise ValueError(unknown("model", name, names(folder=folder)))
    path = Path(folder) / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is damaged: it is not JSON") from None


def load(name: str, *, folder: str | Path = FOLDER, **replace) -> nn.Module:
    """A trained model in eval mode, float32; `replace` sets arguments anew: `load("lm_relu", attend=mine)`.

    The checksum is compared before the file is parsed. Raises ValueError for an unknown name and for a file
    that is not the one the card describes or does not fit `replace`, FileNotFoundError where it is missing.
    """
    about, path = card(name, folder=folder), Path(folder) / f"{name}.safetensors"
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing though its card is there") from None
    if hashlib.sha256(blob).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file its card describes ({len(blob)} of {about['bytes']} bytes)")
    model = CLASSES[about["model"]](**_resolved(about["config"]) | replace)
    try:
        model.load_state_dict(safetensors.torch.load(blob))
    except RuntimeError:
        raise ValueError(f"the weights of {name} do not fit {about['model']} with {replace}") from None
    return model.eval()


def named(config: dict) -> dict:
    """A model's configuration as a card holds it: functions by name, `module:function`.

    Raises ValueError for a function that cannot be found again by its name, such as a lambda.
    """
    return {key: _name(key, value) if callable(value) else value for key, value in config.items()}


def _name(key: str, function) -> str:
    name = f"{function.__module__}:{getattr(function, '__qualname__', '')}"
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not function:
        raise ValueError(f"{key}={function!r} cannot be stored: {name!r} does not find it again")
    return name


def _resolved(config: dict) -> dict:
    def function(value) -> bool:
        return isinstance(value, str) and ":" in value

    return {key: pkgutil.resolve_name(value) if function(value) else value for key, value in config.items()}
