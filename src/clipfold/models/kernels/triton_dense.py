# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, no-any-return"
# ruff: noqa: RET505, SIM300  (Triton would compile what follows a return)
"""Triton kernels of the reduction for clips that lie in memory as they are: bytes, 16-bit numbers or fp32.

Pixels are exact in half precision (a byte has 8 bits, a 16-bit number is two bytes), so only the other factor of each
product has to be cut into pieces, *limbs*, that add up to it: two fp16 limbs of a scaled weight hold 22 bits of it,
two bf16 limbs of a gradient 16 bits, at any scale. Products of limbs are exact and tensor cores add them in fp32: what
comes out is nearly what fp32 arithmetic gives, while the time is that of reading the bytes.

``ASM`` turns bytes into halves by writing them into the mantissa of a constant, four at a time: exact, and several
times as fast as the conversion instruction, which would be slower than the memory. Triton's interpreter knows no
assembly and takes the plain conversion; it also rounds to bf16 wrongly, so the limbs' dtype is a parameter.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["reduce_kernel", "split_weights_kernel", "sum_splits_kernel", "weight_grad_kernel"]


@triton.jit
def _from_bytes(x, LIMB: tl.constexpr, ASM: tl.constexpr):
    """uint8 as fp16 or bf16, exactly.

    Not pure, although they are: the compiler would move a pure conversion behind the exchange of values between
    threads, and exchange bytes one by one.
    """
    if not ASM:
        return x.to(LIMB)
    elif LIMB == tl.float16:  # 0x6400 is 1024 and leaves 10 bits of mantissa free; then 1024 is taken away
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 one, two, thousand;
            mov.b32 thousand, 0x64006400;
            prmt.b32 one, $2, thousand, 0x5150;
            prmt.b32 two, $2, thousand, 0x5352;
            sub.f16x2 $0, one, thousand;
            sub.f16x2 $1, two, thousand;
            }""",
            "=r,=r,r",
            [x],
            dtype=tl.float16,
            is_pure=False,
            pack=4,
        )
    else:  # 0x4300 is 128 and leaves 7 bits free; where the eighth is not set, 128 goes again (0x80 * 0x186 = -128.0)
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 one, two, less, ones, none;
            mov.b32 ones, 0x3F803F80;
            mov.b32 none, 0;
            prmt.b32 one, $2, none, 0x4140;
            prmt.b32 two, $2, none, 0x4342;
            lop3.b32 less, one, 0x00800080, 0, 0x0C;
            mul.lo.u32 less, less, 0x186;
            lop3.b32 one, one, 0x007F007F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $0, one, ones, less;
            lop3.b32 less, two, 0x00800080, 0, 0x0C;
            mul.lo.u32 less, less, 0x186;
            lop3.b32 two, two, 0x007F007F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $1, two, ones, less;
            }""",
            "=r,=r,r",
            [x],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=4,
        )


@triton.jit
def _add_product(sums, left, pixels, ASM: tl.constexpr, ACROSS: tl.constexpr):
    """``sums + left @ pixels`` (``pixels`` transposed where ACROSS); 16-bit pixels count in units of 256."""
    if pixels.dtype == tl.float32:
        return tl.dot(left, tl.trans(pixels) if ACROSS else pixels, sums, input_precision="ieee")
    elif pixels.dtype == tl.uint8:
        halves = _from_bytes(pixels, left.dtype, ASM)
        return tl.dot(left, tl.trans(halves) if ACROSS else halves, sums)
    else:
        high = _from_bytes((pixels >> 8).to(tl.uint8), left.dtype, ASM)
        low = (_from_bytes((pixels & 255).to(tl.uint8), left.dtype, ASM) * 0.00390625).to(left.dtype)  # exact
        sums = tl.dot(left, tl.trans(high) if ACROSS else high, sums)
        return tl.dot(left, tl.trans(low) if ACROSS else low, sums)


@triton.jit
def _add_limbs(sums, LIMBS: tl.constexpr, KP: tl.constexpr, WIDTH: tl.constexpr, UNITS: tl.constexpr):
    """(LIMBS * KP, WIDTH) sums of limbs, 8 maps at a time, as (KP, WIDTH) sums, times UNITS."""
    return tl.reshape(tl.sum(tl.reshape(sums, (KP // 8, LIMBS, 8, WIDTH)), axis=1), (KP, WIDTH)) * UNITS


@triton.jit
def _row_offsets(r, C, frame_stride, channel_stride, UNIT: tl.constexpr, EVEN: tl.constexpr):
    """Where row r (frame r // C, channel r % C) begins; EVEN: all rows are channel_stride apart. Strides in UNITs."""
    if EVEN:
        return r.to(tl.int64) * channel_stride * UNIT
    else:
        return ((r // C).to(tl.int64) * frame_stride + (r % C).to(tl.int64) * channel_stride) * UNIT


@triton.jit
def split_weights_kernel(weights, limbs, inverse, K, R, RS, BLOCK: tl.constexpr):
    """One row of weights as two limbs, times a power of two that brings its largest weight to 2^14 .. 2^15.

    (clips, K, R) fp32 -> limbs (clips, 2, K, RS), zero from R on, and inverse (clips, K), the power to multiply by.
    """
    k = tl.program_id(0)
    clip = tl.program_id(1).to(tl.int64)
    row = weights + (clip * K + k) * R
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, R, BLOCK):
        r = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(row + r, mask=r < R, other=0.0)))
    exponent = (tl.max(largest, 0).to(tl.int32, bitcast=True) >> 23) & 255
    power = tl.minimum(268 - exponent, 253)  # biased; at most 253, so that its inverse is a normal number
    scale = (power << 23).to(tl.float32, bitcast=True)
    tl.store(inverse + clip * K + k, ((254 - power) << 23).to(tl.float32, bitcast=True))
    for start in range(0, RS, BLOCK):
        r = start + tl.arange(0, BLOCK)
        scaled = tl.load(row + r, mask=r < R, other=0.0) * scale
        high = scaled.to(limbs.dtype.element_ty)
        low = (scaled - high.to(tl.float32)).to(limbs.dtype.element_ty)
        tl.store(limbs + (clip * 2 * K + k) * RS + r, high, mask=r < RS)
        tl.store(limbs + (clip * 2 * K + K + k) * RS + r, low, mask=r < RS)


@triton.jit
def reduce_kernel(
    pixels, weights, inverse, bias, maps,
    K, R, RS, C, P_UNITS, clip_stride, frame_stride, channel_stride, pixel_stride,
    weight_clip_stride, inverse_clip_stride, bias_clip_stride,
    UNIT: tl.constexpr, EVEN: tl.constexpr, LIMBS: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr,
    ASM: tl.constexpr,
):  # fmt: skip
    """KP maps at BP positions of a clip: bias[k] + inverse[k] * sum over limbs, r of weights[limb, k, r] pixels[r, p].

    P = P_UNITS * UNIT positions: UNIT tells the compiler how rows are aligned, and clip, frame and channel strides
    count in it. The rows m of the left matrix are, in groups of 16, the high limbs of 8 maps and then their low limbs:
    one thread holds both sums of a map.
    """
    P = P_UNITS * UNIT
    clip = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    m = tl.arange(0, LIMBS * KP)
    k = tl.program_id(2) * KP + m // (8 * LIMBS) * 8 + m % 8
    weight_rows = weights + clip * weight_clip_stride + (m // 8 % LIMBS * K + k) * RS
    columns = pixels + clip * clip_stride * UNIT + p.to(tl.int64) * pixel_stride
    sums = tl.zeros((LIMBS * KP, BP), tl.float32)
    for start in range(0, R, BR):
        r = start + tl.arange(0, BR)
        offsets = _row_offsets(r, C, frame_stride, channel_stride, UNIT, EVEN)
        x = tl.load(columns[None, :] + offsets[:, None], mask=(r[:, None] < R) & (p[None, :] < P), other=0)
        w = tl.load(weight_rows[:, None] + r[None, :], mask=(k[:, None] < K) & (r[None, :] < RS), other=0.0)
        sums = _add_product(sums, w, x, ASM, False)
    totals = _add_limbs(sums, LIMBS, KP, BP, 256.0 if pixels.dtype.element_ty == tl.uint16 else 1.0)
    k = tl.program_id(2) * KP + tl.arange(0, KP)
    scale = tl.load(inverse + clip * inverse_clip_stride + k, mask=k < K, other=0.0)
    constant = tl.load(bias + clip * bias_clip_stride + k, mask=k < K, other=0.0)
    tl.store(
        maps + clip * K * P + k[:, None].to(tl.int64) * P + p[None, :],
        totals * scale[:, None] + constant[:, None],
        mask=(k[:, None] < K) & (p[None, :] < P),
    )


@triton.jit
def weight_grad_kernel(
    pixels, grad_maps, parts,
    K, R, RS, C, P_UNITS, SPLIT, BLOCKS, clip_stride, frame_stride, channel_stride, pixel_stride,
    UNIT: tl.constexpr, EVEN: tl.constexpr, LIMBS: tl.constexpr, KP: tl.constexpr, BRA: tl.constexpr, BRB: tl.constexpr,
    BP: tl.constexpr, LIMB: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """KP maps, BRA + BRB rows, SPLIT positions of a clip: parts[k, r] = sum over p of grad_maps[k, p] pixels[r, p].

    The parts are (clips, splits, K, RS), RS = R rounded up to 16, and 16 more: the first of these is the sum of the
    gradient itself, which is the bias's. The second accumulator (where BRB is not 0) is there because sizes are powers
    of two: 300 rows are 2 * (128 + 32), or 3 * 128. The limbs are stacked into one left matrix as in
    :func:`reduce_kernel`.
    """
    P = P_UNITS * UNIT
    block = tl.program_id(0) % BLOCKS
    group = tl.program_id(0) // BLOCKS
    split = tl.program_id(1)
    clip = tl.program_id(2).to(tl.int64)
    ra = block * (BRA + BRB) + tl.arange(0, BRA)
    first_row = pixels + clip * clip_stride * UNIT
    rows_a = first_row + _row_offsets(ra, C, frame_stride, channel_stride, UNIT, EVEN)
    sums_a = tl.zeros((LIMBS * KP, BRA), tl.float32)
    if BRB:
        rb = block * (BRA + BRB) + BRA + tl.arange(0, BRB)
        rows_b = first_row + _row_offsets(rb, C, frame_stride, channel_stride, UNIT, EVEN)
        sums_b = tl.zeros((LIMBS * KP, BRB), tl.float32)
    m = tl.arange(0, LIMBS * KP)
    k = group * KP + m // (8 * LIMBS) * 8 + m % 8
    high_row = (m // 8 % LIMBS == 0)[:, None]
    grad_rows = grad_maps + clip * K * P + k.to(tl.int64) * P
    bias_sums = tl.zeros((LIMBS * KP,), tl.float32)
    for start in range(split * SPLIT, tl.minimum((split + 1) * SPLIT, P), BP):
        p = start + tl.arange(0, BP)
        inside = p[None, :] < P
        columns = p[None, :].to(tl.int64) * pixel_stride
        xa = tl.load(rows_a[:, None] + columns, mask=(ra[:, None] < R) & inside, other=0)
        if BRB:
            xb = tl.load(rows_b[:, None] + columns, mask=(rb[:, None] < R) & inside, other=0)
        g = tl.load(grad_rows[:, None] + p[None, :], mask=(k[:, None] < K) & inside, other=0.0)
        bias_sums += tl.sum(
            g, 1
        )  # of all row blocks, though one would do: a branch stops the compiler from prefetching
        limb = g.to(LIMB)
        if LIMBS == 2:
            limb = tl.where(high_row, limb, (g - limb.to(tl.float32)).to(LIMB))
        sums_a = _add_product(sums_a, limb, xa, ASM, True)
        if BRB:
            sums_b = _add_product(sums_b, limb, xb, ASM, True)
    part = parts + (clip * tl.num_programs(1) + split) * K * RS
    UNITS: tl.constexpr = 256.0 if pixels.dtype.element_ty == tl.uint16 else 1.0
    rows = group * KP + tl.arange(0, KP)
    out = part + rows[:, None] * RS
    tl.store(
        out + ra[None, :],
        _add_limbs(sums_a, LIMBS, KP, BRA, UNITS),
        mask=(rows[:, None] < K) & (ra[None, :] < RS - 16),
    )
    if BRB:
        tl.store(
            out + rb[None, :],
            _add_limbs(sums_b, LIMBS, KP, BRB, UNITS),
            mask=(rows[:, None] < K) & (rb[None, :] < RS - 16),
        )
    if block == 0:
        tl.store(part + k * RS + RS - 16, bias_sums, mask=(m // 8 % LIMBS == 0) & (k < K))


@triton.jit
def sum_splits_kernel(parts, grad_weights, grad_bias, K, R, RS, SPLITS, BLOCK: tl.constexpr):
    """The second stage: one row of the gradient is the sum of its parts, always in the same order."""
    k = tl.program_id(1)
    clip = tl.program_id(2).to(tl.int64)
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.where(r == R, RS - 16, r)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(SPLITS):
        total += tl.load(parts + ((clip * SPLITS + split) * K + k) * RS + column, mask=r <= R, other=0.0)
    tl.store(grad_weights + (clip * K + k) * R + r, total, mask=r < R)
    tl.store(grad_bias + clip * K + k + tl.zeros_like(r), total, mask=r == R)
