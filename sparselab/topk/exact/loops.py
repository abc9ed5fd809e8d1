"""The k largest of a row in compiled loops: a bound that few entries exceed, then those that do."""

from sparselab.loops import compiled


@compiled
def largest(start, stop, x, bits, magnitude, k, groups, chunk, idx, hard):
    """idx[i] = places of the k largest of x[i], equals in rising order, for start <= i < stop.

    Column j is in group j modulo `groups`. Where k maxima of groups reach a bound, so do k entries, seldom
    many more. `bits` are the floats of x as integers, `magnitude` all bits but the sign. Where there is a
    NaN, or more entries exceed the bound than there is room for, only `hard[i]` is set.
    """
    n = x.shape[1]
    room = min(n, 8 * k)
    for i in range(start, stop):
        row, maxima = x[i], x[i, :groups].copy()
        size = x.dtype.type(0)  # NaN if an entry is
        for first in range(0, n - groups + 1, groups):
            part = row[first : first + groups]
            for j in range(groups):
                value, best = part[j], maxima[j]
                maxima[j] = value if value > best else best
                size += abs(value)
        part = row[n // groups * groups :]
        for j in range(part.size):
            size += abs(part[j])

        low, high = maxima.min(), maxima.max()
        for _ in range(24):
            middle = low + (high - low) / 2
            above = 0
            for j in range(groups):
                above += maxima[j] >= middle
            if above < k:
                high = middle
            else:
                low = middle
                if above <= k + k // 8:
                    break

        place, key = bits[i, :room].copy(), bits[i, :room].copy()  # of the entries above the bound
        found = equal = 0
        for first in range(0, n, chunk):
            part, hits = row[first : first + chunk], 0  # most hold nothing, and are skipped
            if equal < k:
                for j in range(part.size):
                    hits += part[j] >= low
            else:
                for j in range(part.size):
                    hits += part[j] > low
            if hits == 0:
                continue
            for j in range(part.size):
                if part[j] > low and found < room:
                    b = bits[i, first + j]
                    key[found] = b if b >= 0 else -(b & magnitude)  # rises with the float, -0 and 0 are one
                    place[found] = first + j
                    found += 1
                elif part[j] == low and equal < k:
                    idx[i, equal] = first + j
                    equal += 1
        if size != size or found == room or found + equal < k:
            hard[i] = True
            continue

        if found > k:  # raise the bound to the k-th largest key
            bottom, top = key[:found].min(), key[:found].max()
            while bottom < top:
                middle = (bottom | top) - ((bottom ^ top) >> 1)  # their mean, without their sum
                above = 0
                for j in range(found):
                    above += key[j] >= middle
                if above >= k:
                    bottom = middle
                else:
                    top = middle - 1
            left = k  # places for keys at the bound
            for j in range(found):
                left -= key[j] > bottom
            kept = 0
            for j in range(found):
                if key[j] > bottom or (key[j] == bottom and left > 0):
                    left -= key[j] == bottom
                    idx[i, kept] = place[j]
                    kept += 1
        else:
            for j in range(k - 1, found - 1, -1):
                idx[i, j] = idx[i, j - found]
            for j in range(found):
                idx[i, j] = place[j]
    return True
