"""Attention of few queries in compiled loops: the listed blocks are read where they lie, not gathered.

Four keys at a time, a quarter of a block apart: they lie on different pages of memory, which answers several
requests at once.
"""

from sparselab.loops import compiled


@compiled
def logits(start, stop, rows, keys, units, scale, out):
    """out[l, i] = scale rows[l, i] k for all keys k in the units of list l, for start <= l < stop."""
    r, unit, part = rows.shape[1], keys.shape[1], keys.shape[1] // 4
    for one in range(start, stop):
        for u in range(units.shape[1]):
            block = keys[units[one, u]]
            for i in range(r):
                q, x = rows[one, i], out[one, i, u * unit : (u + 1) * unit]
                for j in range(part):
                    k0, k1, k2, k3 = block[j], block[j + part], block[j + 2 * part], block[j + 3 * part]
                    s0 = s1 = s2 = s3 = q.dtype.type(0)
                    for c in range(q.size):
                        s0 += q[c] * k0[c]
                        s1 += q[c] * k1[c]
                        s2 += q[c] * k2[c]
                        s3 += q[c] * k3[c]
                    x[j], x[j + part] = scale * s0, scale * s1
                    x[j + 2 * part], x[j + 3 * part] = scale * s2, scale * s3
                for j in range(4 * part, unit):
                    key = block[j]
                    s = q.dtype.type(0)
                    for c in range(q.size):
                        s += q[c] * key[c]
                    x[j] = scale * s
    return True


@compiled
def total(start, stop, shares, values, units, out):
    """out[l, i] = sum_j shares[l, i, j] v_j over the units that list l names, for start <= l < stop."""
    r, unit, part = shares.shape[1], values.shape[1], values.shape[1] // 4
    for one in range(start, stop):
        out[one] = 0
        for u in range(units.shape[1]):
            block = values[units[one, u]]
            for i in range(r):
                share, row = shares[one, i, u * unit : (u + 1) * unit], out[one, i]
                for j in range(part):
                    v0, v1, v2, v3 = block[j], block[j + part], block[j + 2 * part], block[j + 3 * part]
                    p0, p1, p2, p3 = share[j], share[j + part], share[j + 2 * part], share[j + 3 * part]
                    for c in range(row.size):
                        row[c] += p0 * v0[c] + p1 * v1[c] + p2 * v2[c] + p3 * v3[c]
                for j in range(4 * part, unit):
                    value = block[j]
                    for c in range(row.size):
                        row[c] += share[j] * value[c]
    return True
