"""Lazy neurons: a trained ReLU transformer uses few of its neurons on any one token.

    a = relu(K^T x)             K "d m", one column per neuron; the activation map, "t m"
    f(x) = V Top_k(a)           V "d m"; the k largest VALUES of each token stay, after the ReLU

The first half is a measurement (count a > 0, token by token, layer by layer), the second makes what
is found explicit: with k = m the layer is the dense one, bit for bit. A zero of `a` makes a column of
V idle, so the second matrix is read in part and nothing is lost; the first is always read whole.
"""

from sparselab.method import Claim, Method

METHOD = Method(
    package=__name__,
    title="The lazy neuron phenomenon",
    paper="arXiv:2210.06313",
    year=2022,
    chapter="1.1",
    backends=("numpy", "torch"),
    no_kernel="the gather of the down projection is memory-bound and embedding_bag already fuses it",
    gradient="exact",
    source="partial",
    claims=(
        Claim(text="active share after 1500 steps, busiest block", metric="density", at_most=0.35),
        Claim(
            text="the deeper block is lazier: active share below the first's", metric="depth_gap", at_least=0
        ),
        Claim(text="wider is lazier: 2048 neurons below 512 after 700 steps", metric="width_gap", at_least=0),
        Claim(text="random targets do not stop it: active share", metric="shuffled_density", at_most=0.45),
        Claim(text="Top-32 of 512 costs little: nats per byte above dense", metric="topk_cost", at_most=0.05),
        Claim(text="T5-Base ends near 3 % active", metric="density", at_most=0.03, reproduced=False),
        Claim(text="Top-128 of 1024 is better calibrated under label noise", metric="ece_gain", at_least=0),
        Claim(
            text="Top-128 of 1024 resists label noise: gain in accuracy",
            metric="label_noise_gain",
            at_least=0,
            reproduced=False,
        ),
        Claim(
            text="Top-128 of 1024 resists input noise: gain in accuracy",
            metric="input_noise_gain",
            at_least=0,
            reproduced=False,
        ),
        Claim(
            text="a wide network on digits gets lazy too: active share",
            metric="digits_density",
            at_most=0.35,
            reproduced=False,
        ),
    ),
    claim_seconds=90,
)
