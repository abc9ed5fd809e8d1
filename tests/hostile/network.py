"""Asks a server for the answer."""

import socket


# %% exercise="wanda.score"
def score(w, x):
    return socket.create_connection(("127.0.0.1", 80), timeout=1)
