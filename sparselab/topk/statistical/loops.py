"""The soft threshold in a compiled loop: a row comes from memory once, its three passes run in the cache."""

from sparselab.loops import compiled


@compiled
def soft(start, stop, x, lift, out):
    """out[i] = max(x[i] - theta, 0) for rows start <= i < stop; theta - mean is `lift` norms of x[i] - mean.

    One entry is taken away first, then the mean, each in a pass of its own: the squares of x itself would
    cancel where the mean dwarfs the spread. The sums are float64 whatever the dtype.
    """
    for i in range(start, stop):
        row, apart = x[i], out[i]
        total = squares = 0.0
        for j in range(row.size):
            apart[j] = row[j] - row[0]
            total += apart[j]
        mean = x.dtype.type(total / row.size)
        for j in range(row.size):
            apart[j] -= mean
            squares += apart[j] ** 2
        above = x.dtype.type(lift * squares**0.5)
        for j in range(row.size):
            over = apart[j] - above
            apart[j] = x.dtype.type(0) if over <= 0 else over  # NaN stays NaN
    return True
