"""Docstrings as pages: prose escaped for Markdown, indented blocks as formulas or as code.

Cards and references write their equations the way one types them, `a = relu(K^T x)    K "d m"`. `formula`
reads that notation and gives LaTeX: names of one letter are variables, longer ones words, `"d m"` is a shape.
"""

import re
import textwrap

GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "eps", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu",
    "nu", "xi", "pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
    "Lambda", "Sigma", "Phi", "Psi", "Omega",
})  # fmt: skip
FUNCTIONS = frozenset({"log", "exp", "max", "min", "cos", "sin"})
SIGNS = {
    "<-": r"\leftarrow", "->": r"\to", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "...": r"\dots",
    "*": r"\cdot", "||": r"\|", "{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$",
    "~": r"\sim", "\\": r"\backslash", "`": "",
}  # fmt: skip
SPACED = frozenset({"=", "<", ">", "+", "-", "*", "<-", "->", "<=", ">=", "!="})  # TeX spaces these itself
WIDE = 60  # letters that fit beside each other on a page

_TOKEN = re.compile(
    r'"[^"]*"|[A-Za-z]+\'s\b|\d+(?:\.\d+)?|[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*\'*|<-|->|<=|>=|!=|\.\.\.|\|\||\s+|.'
)
_RELATION = re.compile(r"\s(=|<-)\s|^(=|<-)\s")


def markdown(docstring: str, *, maths: bool = False) -> str:
    """The docstring as Markdown; its indented blocks become formulas with `maths`, else code."""
    parts = []
    for block in re.split(r"\n\s*\n", textwrap.dedent(docstring).strip("\n")):
        if not block.startswith("    "):
            parts.append(prose(block))
        elif maths:
            parts.append(f"$$\n{formula(textwrap.dedent(block))}\n$$")
        elif parts and parts[-1].endswith("\n```"):
            parts[-1] = parts[-1].removesuffix("```") + f"\n{textwrap.dedent(block)}\n```"
        else:
            parts.append(f"```python\n{textwrap.dedent(block)}\n```")
    return "\n\n".join(parts)


def prose(text: str) -> str:
    """One paragraph in one line; only what stands in backticks keeps a meaning."""
    pieces = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    return "".join(piece if i % 2 else _escaped(piece) for i, piece in enumerate(pieces))


def signs(text: str) -> str:
    """`<= 0.9` with the sign that print has for it."""
    return text.replace("<=", "≤").replace(">=", "≥")


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*_{}\[\]<>$#|~@^])", r"\\\1", text)
    return re.sub(r"^(\d+)([.)])|^([-+:=])", r"\1\\\2\3" if text[:1].isdigit() else r"\\\3", text)


def formula(block: str) -> str:
    """LaTeX of an equation block: one row a line, relations below each other, shapes to the right.

    Where that would be too wide for a page, what stands to the right goes below its row.
    """
    rows = [_row(line) for line in block.rstrip().split("\n")]
    wide = max(sum(len(part) for part in row) for row in rows) > WIDE
    lines = []
    for left, right, *rest in rows:
        beside = "".join(rf" &\quad& {latex(part)}" for part in rest)
        lines.append(f"{latex(left)} & {latex(right)}" + ("" if wide else beside))
        lines += [rf"& \quad\small {latex(part)}" for part in rest if wide]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _row(line: str) -> list[str]:
    """What stands left of the relation, the relation and its right, and what is set apart to the right."""
    first, *rest = re.split(r"\s{2,}", line.strip())
    relation = _RELATION.search(first)
    if relation and '"' not in first[: relation.start()]:
        return [first[: relation.start()], first[relation.start() :], *rest]
    if rest and (_RELATION.match(rest[0]) or re.fullmatch(r"\w+|.*:", first)):
        return [first, *rest]
    return ["", first, *rest]


def latex(text: str) -> str:
    """One run of the typed notation in LaTeX."""
    if _is_prose(text):
        return rf"\text{{{_plain(text.strip())}}}"
    return _read(_TOKEN.findall(text.strip()))


def _is_prose(text: str) -> bool:
    words = re.findall(r"[A-Za-z]+", text)
    return sum(len(word) > 1 for word in words) > 1 and not re.search(r'[=<>^_|~\\\[\]"*+/]|\d', text)


def _plain(text: str) -> str:
    return re.sub(r"([#%&$_{}])", r"\\\1", text.replace("`", ""))


def _read(tokens: list[str]) -> str:
    """LaTeX of the tokens; consumes the list."""
    out: list[str] = []
    before = "="
    while tokens:
        token = tokens.pop(0)
        if token.isspace():
            if before not in SPACED and tokens[:1] and tokens[0] not in SPACED:
                out.append(r"\;" if _is_word(before) or _is_word(tokens[0]) else r"\,")
            continue
        elif token == "a" and _is_word(before) and len(tokens) > 1 and _is_word(tokens[1]):
            out.append(r"\mathrm{a}")
        elif token == "^":
            out.append(f"^{{{_operand(tokens)}}}")
        elif token == "_" and out:
            out.append(f"_{{{_operand(tokens)}}}")
        elif token == "." and out and tokens and re.match(r"[A-Za-z]", tokens[0]):
            out.append(r"{\cdot}")
        elif token == "sqrt" and tokens[:1] == ["("]:
            out.append(rf"\sqrt{{{_group(tokens)}}}")
        else:
            out.append(_one(token))
        before = token
    return " ".join(out)


def _operand(tokens: list[str]) -> str:
    """What a `^` or `_` lifts or lowers: a group, a signed number or name."""
    if tokens[:1] == ["("]:
        return _group(tokens)
    sign = tokens.pop(0) if tokens[:1] in (["-"], ["+"]) else ""
    token = tokens.pop(0) if tokens else ""
    return sign + (r"\top" if token == "T" else _one(token))


def _group(tokens: list[str]) -> str:
    """What stands between this parenthesis and its partner."""
    depth, inside = 0, []
    while tokens:
        token = tokens.pop(0)
        depth += (token == "(") - (token == ")")
        inside.append(token)
        if depth == 0:
            break
    return _read(inside[1 : -1 if depth == 0 else None])


def _one(token: str) -> str:
    if token.startswith('"'):
        shape = token.strip('"').split()
        return r"{\scriptsize " + (r"{\times}".join(map(_plain, shape)) or r"\text{scalar}") + "}"
    if token.endswith("'s"):
        return rf"\text{{{token}}}"
    if not re.match(r"[A-Za-z]", token):
        return SIGNS.get(token, token)
    name = token.rstrip("'")
    primes = token[len(name) :]
    base, _, below = name.partition("_")
    if below and (len(base) == 1 or base in GREEK or base in {"sum", "log", "max", "min"} and len(below) < 3):
        low = below if len(below) < 3 and below.isalnum() else rf"\mathrm{{{_plain(below)}}}"
        head = r"\sum" if base == "sum" else _name(base)
        return f"{head}{primes}_{{{low}}}"
    return _name(name) + primes


def _name(name: str) -> str:
    if name in GREEK or name in FUNCTIONS:
        return "\\" + {"eps": "varepsilon", "epsilon": "varepsilon"}.get(name, name)
    if len(name) == 1 or re.fullmatch(r"[a-z]\d|d[a-zA-Z]", name):
        return name
    return rf"\mathrm{{{_plain(name)}}}"


def _is_word(token: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z]{2,}('s)?", token)) and token not in GREEK
