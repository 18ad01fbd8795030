"""Triton kernels of the fused residual tail, forward: two reads of the map for its pools, then one pass that writes.

Maps lie in memory as N P C: P = H·W places of C channels each (channels_last). Arithmetic is fp32, whatever the maps
are. Sums have two stages, within a program and over the programs, in an order that depends on the shape alone, and no
atomics: the same input gives the same bits. `S` programs share the places of one image, `share` each.

NORM  the batch norm before the attention: 0 none, 1 with the batch's statistics, 2 with running ones. Its rows in
      `norm` are mean, 1/std, weight, bias and variance, C each
MODE  the same for the norm of the spatial gate
TRACK whether the running statistics move

NaN: `tl.max` drops it, but the average beside each maximum keeps it, and every gate is made of both.
"""

import triton
import triton.language as tl


@triton.jit
def channel_affine(norm, logits, n, c, C, NORM: tl.constexpr):
    """Return mean, scale and shift with Mc(x)·x = (z - mean)·scale + shift, and Mc, for channels `c` of image `n`."""
    gate = tl.sigmoid(tl.load(logits + n * C + c, mask=c < C, other=0.0))
    if NORM > 0:
        mean = tl.load(norm + c, mask=c < C, other=0.0)
        scale = tl.load(norm + C + c, mask=c < C, other=0.0) * tl.load(norm + 2 * C + c, mask=c < C, other=0.0)
        shift = tl.load(norm + 3 * C + c, mask=c < C, other=0.0)
        return mean, scale * gate, shift * gate, gate
    return gate * 0.0, gate, gate * 0.0, gate


@triton.jit
def pool_places(
    z, norm_weight, means, squares, tops, places, C, P, S, share,
    NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Per image, share and channel: mean, sum of squared deviations, extreme value and its first place.

    The extreme is the largest value, or the smallest where the norm's weight is negative: the largest after the norm.
    A weight of zero makes all places equal, and the first one counts.
    """
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    image = z + n * P * C
    direction = tl.full([COLS], 1.0, tl.float32)
    pivot = tl.zeros([COLS], tl.float32)
    if NORM > 0:
        weight = tl.load(norm_weight + c, mask=c < C, other=0.0).to(tl.float32)
        direction = tl.where(weight > 0, 1.0, tl.where(weight < 0, -1.0, 0.0))
        pivot = tl.load(image + first * C + c, mask=c < C, other=0.0).to(tl.float32)  # keeps the squares small
    total = tl.zeros([COLS], tl.float32)
    square = tl.zeros([COLS], tl.float32)
    top = tl.full([COLS], float("-inf"), tl.float32)
    place = tl.zeros([COLS], tl.int32)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        value = tl.load(image + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(inside, value - pivot[None, :], 0.0)
        total += tl.sum(centred, 0)
        if NORM == 1:
            square += tl.sum(centred * centred, 0)
        directed = tl.where(inside, value * direction[None, :], float("-inf"))
        best = tl.max(directed, 0)
        where = tl.min(tl.where(directed == best[None, :], p[:, None], P - 1), 0)
        place = tl.where(best > top, where, place)
        top = tl.where(best > top, best, top)
    mean = total / (last - first)
    at = row.to(tl.int64) * C + c
    tl.store(means + at, mean + pivot, mask=c < C)
    tl.store(tops + at, top, mask=c < C)
    tl.store(places + at, place, mask=c < C)
    if NORM == 1:
        tl.store(squares + at, square - mean * total, mask=c < C)


@triton.jit
def batch_moments(means, squares, c, C, P, N, S, share, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return mean and variance over N images and P places of the channels `c`, from those of every share."""
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, N * S, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < N * S)[:, None] & (c < C)[None, :]
        count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
        at = row.to(tl.int64)[:, None] * C + c[None, :]
        total += tl.load(means + at, mask=inside, other=0.0) * count[:, None]
    mean = tl.sum(total, 0) / (N * P * 1.0)
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, N * S, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < N * S)[:, None] & (c < C)[None, :]
        count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
        at = row.to(tl.int64)[:, None] * C + c[None, :]
        away = tl.load(means + at, mask=inside, other=0.0) - mean[None, :]
        spread = tl.load(squares + at, mask=inside, other=0.0) + count[:, None] * away * away
        total += tl.where(inside, spread, 0.0)
    variance = tl.sum(total, 0) / (N * P * 1.0)
    return mean, tl.where(variance < 0, 0.0, variance)


@triton.jit
def move_running(mean, variance, running_mean, running_variance, c, C, momentum, elements):
    """Move the running statistics of the channels `c`; the variance that is kept is the unbiased one."""
    old = tl.load(running_mean + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(running_mean + c, old + momentum * (mean - old), mask=c < C)
    old = tl.load(running_variance + c, mask=c < C, other=0.0).to(tl.float32)
    unbiased = variance * (elements / (elements - 1))
    tl.store(running_variance + c, old + momentum * (unbiased - old), mask=c < C)


@triton.jit
def store_norm(norm, mean, inverse_std, weight, bias, variance, c, C):
    """Write the rows of `norm` for the channels `c`."""
    tl.store(norm + c, mean, mask=c < C)
    tl.store(norm + C + c, inverse_std, mask=c < C)
    tl.store(norm + 2 * C + c, weight, mask=c < C)
    tl.store(norm + 3 * C + c, bias, mask=c < C)
    tl.store(norm + 4 * C + c, variance, mask=c < C)


@triton.jit
def pool_statistics(
    z, means, squares, tops, places, weight, bias, running_mean, running_variance, batches, norm, pooled, index,
    eps, momentum, elements, size, C, P, N, S, share,
    NORM: tl.constexpr, TRACK: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, IMAGES: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """The rows of `norm`; average and maximum of every channel of every image, and the maximum's place, `index` N C.

    `pooled` 4 N C: both pools normalised only, then both as the channel gate sees them.
    """
    c = tl.program_id(0) * COLS + tl.arange(0, COLS)
    mean, inverse_std = tl.zeros([COLS], tl.float32), tl.full([COLS], 1.0, tl.float32)
    scale, shift = inverse_std, mean
    if NORM > 0:
        if NORM == 1:
            mean, variance = batch_moments(means, squares, c, C, P, N, S, share, ROWS, COLS)
        else:
            mean = tl.load(running_mean + c, mask=c < C, other=0.0).to(tl.float32)
            variance = tl.load(running_variance + c, mask=c < C, other=0.0).to(tl.float32)
        if TRACK:
            move_running(mean, variance, running_mean, running_variance, c, C, momentum, elements)
            if tl.program_id(0) == 0:
                tl.store(batches, tl.load(batches) + 1)
        inverse_std = 1 / tl.sqrt_rn(variance + eps)
        scale = tl.load(weight + c, mask=c < C, other=0.0).to(tl.float32)
        shift = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
        store_norm(norm, mean, inverse_std, scale, shift, variance, c, C)
    for start in range(0, N, IMAGES):
        n = (start + tl.arange(0, IMAGES)).to(tl.int64)
        inside = (n < N)[:, None] & (c < C)[None, :]
        average = tl.zeros([IMAGES, COLS], tl.float32)
        top = tl.full([IMAGES, COLS], float("-inf"), tl.float32)
        place = tl.zeros([IMAGES, COLS], tl.int32)
        for s in tl.range(S, loop_unroll_factor=UNROLL):
            at = (n * S + s)[:, None] * C + c[None, :]
            average += tl.load(means + at, mask=inside, other=0.0) * tl.minimum(share, P - s * share)
            best = tl.load(tops + at, mask=inside, other=float("-inf"))
            where = tl.load(places + at, mask=inside, other=0)
            place = tl.where(best > top, where, place)
            top = tl.where(best > top, best, top)
        maximum = tl.load(z + (n[:, None] * P + place) * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        average = (average / P - mean[None, :]) * inverse_std[None, :]
        maximum = (maximum - mean[None, :]) * inverse_std[None, :]
        at = n[:, None] * C + c[None, :]
        tl.store(index + at, place, mask=inside)
        tl.store(pooled + at, average, mask=inside)
        tl.store(pooled + size + at, maximum, mask=inside)
        tl.store(pooled + 2 * size + at, average * scale[None, :] + shift[None, :], mask=inside)
        tl.store(pooled + 3 * size + at, maximum * scale[None, :] + shift[None, :], mask=inside)


@triton.jit
def hidden_units(
    pooled, weight, bias, hidden, size, C, HIDDEN, N2,
    BIAS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """hidden (2N HIDDEN) = relu(pooled · W0ᵀ + b0), for the averages and the maxima, which are N2 = 2N rows."""
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    h = tl.program_id(1) * COLS + tl.arange(0, COLS)
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, C, INNER):
        c = start + tl.arange(0, INNER)
        x = tl.load(
            pooled + 2 * size + m[:, None] * C + c[None, :], mask=(m < N2)[:, None] & (c < C)[None, :], other=0.0
        )
        w = tl.load(weight + h[None, :] * C + c[:, None], mask=(h < HIDDEN)[None, :] & (c < C)[:, None], other=0.0)
        total = tl.dot(x, w.to(tl.float32), total, input_precision=PRECISION)
    if BIAS:
        total += tl.load(bias + h, mask=h < HIDDEN, other=0.0).to(tl.float32)[None, :]
    inside = (m < N2)[:, None] & (h < HIDDEN)[None, :]
    tl.store(hidden + m[:, None] * HIDDEN + h[None, :], tl.where(total < 0, 0.0, total), mask=inside)  # keeps NaN


@triton.jit
def gate_logits(
    hidden, weight, bias, logits, C, HIDDEN, N,
    BIAS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """logits (N C) = W1 · h_average + W1 · h_maximum by one product; its bias counts twice."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLS + tl.arange(0, COLS)
    total = tl.zeros([ROWS, COLS], tl.float32)
    for start in range(0, HIDDEN, INNER):
        h = start + tl.arange(0, INNER)
        inside = (n < N)[:, None] & (h < HIDDEN)[None, :]
        at = hidden + n[:, None] * HIDDEN + h[None, :]
        both = tl.load(at, mask=inside, other=0.0) + tl.load(at + N * HIDDEN, mask=inside, other=0.0)
        w = tl.load(weight + c[None, :] * HIDDEN + h[:, None], mask=(c < C)[None, :] & (h < HIDDEN)[:, None], other=0.0)
        total = tl.dot(both, w.to(tl.float32), total, input_precision=PRECISION)
    if BIAS:
        total += 2 * tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    tl.store(logits + n[:, None] * C + c[None, :], total, mask=(n < N)[:, None] & (c < C)[None, :])


@triton.jit
def pool_channels(
    z, norm, logits, maps, channel, C, P, S, share,
    NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Maximum and average over the channels of Mc(x)·x, `maps` N 2 P, and which channel the maximum is, N P."""
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, scale, shift, _ = channel_affine(norm, logits, n, c, C, NORM)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        value = tl.load(z + n * P * C + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        x = (value - mean[None, :]) * scale[None, :] + shift[None, :]
        average = tl.sum(tl.where(inside, x, 0.0), 1) / C
        x = tl.where(inside, x, float("-inf"))
        maximum = tl.max(x, 1)
        which = tl.min(tl.where(x == maximum[:, None], c[None, :], C - 1), 1)
        tl.store(maps + n * 2 * P + p, maximum, mask=p < last)
        tl.store(maps + n * 2 * P + P + p, average, mask=p < last)
        tl.store(channel + n * P + p, which, mask=p < last)


@triton.jit
def convolve_maps(
    maps, weight, convolved, moments, H, W, map_stride, tap_stride, KERNEL: tl.constexpr, ROWS: tl.constexpr
):
    """The spatial gate's convolution, `convolved` N P; per program its mean and sum of squared deviations."""
    n = tl.program_id(0).to(tl.int64)
    P = H * W
    p = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    y, x = p // W, p % W
    value = tl.zeros([ROWS], tl.float32)
    for tap in tl.static_range(KERNEL * KERNEL):
        row, column = y + tap // KERNEL - KERNEL // 2, x + tap % KERNEL - KERNEL // 2
        inside = (p < P) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = maps + n * 2 * P + row * W + column
        value += tl.load(at, mask=inside, other=0.0) * tl.load(weight + tap * tap_stride).to(tl.float32)
        value += tl.load(at + P, mask=inside, other=0.0) * tl.load(weight + map_stride + tap * tap_stride).to(
            tl.float32
        )
    tl.store(convolved + n * P + p, value, mask=p < P)
    count = tl.minimum(ROWS, P - tl.program_id(1) * ROWS)
    mean = tl.sum(value, 0) / count
    away = tl.where(p < P, value - mean, 0.0)
    at = n * tl.num_programs(1) + tl.program_id(1)
    tl.store(moments + 2 * at, mean)
    tl.store(moments + 2 * at + 1, tl.sum(away * away, 0))


@triton.jit
def map_statistics(
    moments, weight, bias, running_mean, running_variance, batches, spatial, eps, momentum, elements, P, N, S, share,
    MODE: tl.constexpr, TRACK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """`spatial`: mean, 1/std, scale, shift and variance of the convolved map v; Ms = σ(scale·v + shift)."""
    mean, variance = 0.0, 0.0
    if MODE == 1:
        total = tl.zeros([ROWS], tl.float32)
        for start in range(0, N * S, ROWS):
            row = start + tl.arange(0, ROWS)
            count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
            total += tl.load(moments + 2 * row, mask=row < N * S, other=0.0) * count
        mean = tl.sum(total, 0) / elements
        total = tl.zeros([ROWS], tl.float32)
        for start in range(0, N * S, ROWS):
            row = start + tl.arange(0, ROWS)
            count = tl.minimum(share, P - (row % S) * share).to(tl.float32)
            away = tl.load(moments + 2 * row, mask=row < N * S, other=0.0) - mean
            spread = tl.load(moments + 2 * row + 1, mask=row < N * S, other=0.0) + count * away * away
            total += tl.where(row < N * S, spread, 0.0)
        variance = tl.sum(total, 0) / elements
        if TRACK:
            move_running(mean, variance, running_mean, running_variance, tl.arange(0, 1), 1, momentum, elements)
            tl.store(batches, tl.load(batches) + 1)
    elif MODE == 2:
        mean = tl.load(running_mean).to(tl.float32)
        variance = tl.load(running_variance).to(tl.float32)
    if MODE == 0:
        tl.store(spatial, 0.0)
        tl.store(spatial + 1, 1.0)
        tl.store(spatial + 2, 1.0)
        tl.store(spatial + 3, 0.0)
    else:
        inverse_std = 1 / tl.sqrt_rn(variance + eps)
        scale = tl.load(weight).to(tl.float32) * inverse_std
        tl.store(spatial, mean)
        tl.store(spatial + 1, inverse_std)
        tl.store(spatial + 2, scale)
        tl.store(spatial + 3, tl.load(bias).to(tl.float32) - mean * scale)
        tl.store(spatial + 4, variance)


@triton.jit
def refine(
    z, shortcut, norm, logits, convolved, spatial, out, C, P, S, share,
    NORM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """out = relu(Ms·Mc(x)·x + shortcut)."""
    row = tl.program_id(0)
    n = (row // S).to(tl.int64)
    first = (row % S) * share
    last = tl.minimum(first + share, P)
    c = tl.arange(0, COLS)
    mean, scale, shift, _ = channel_affine(norm, logits, n, c, C, NORM)
    spatial_scale, spatial_shift = tl.load(spatial + 2), tl.load(spatial + 3)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        p = start + tl.arange(0, ROWS)
        inside = (p < last)[:, None] & (c < C)[None, :]
        at = n * P * C + p[:, None] * C + c[None, :]
        value = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
        residual = tl.load(shortcut + at, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(convolved + n * P + p, mask=p < last, other=0.0)
        gate = tl.sigmoid(v * spatial_scale + spatial_shift)
        x = ((value - mean[None, :]) * scale[None, :] + shift[None, :]) * gate[:, None] + residual
        tl.store(out + at, tl.where(x < 0, 0.0, x).to(out.dtype.element_ty), mask=inside)  # keeps NaN
