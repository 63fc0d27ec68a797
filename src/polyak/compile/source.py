"""The text of the small module that is compiled for a rule.

It is text since Numba keeps machine code on disk for functions of a module only, never for closures; and since the number
of slots is then plain Python. Every module has the same two entries: `serial` works through the chunks `first` to `last`,
`parallel` gives each thread a run of chunks. What differs is the `chunk` function, the loop over the elements.

Names that the text leaves open and `kernel` fills in: `apply` (the compiled `Update.apply`), `Hyperparameters`, `dtype`, and
the decorators `inner`, `entry` and `parallel_entry`.
"""

from collections.abc import Sequence

# How many elements are summed up in their own dtype.
RUN_LENGTH = 4096

# What the statistics are, in the order of their columns.
STATISTICS = ("gradient_squares", "step_squares", "weight_squares", "gradient_dot_velocity")

_CHUNK = """
@inner
def chunk({arrays}, h, sums):
    wide_vectors()
    for i in range(weight.size):
        weight[i], ({elements}) = apply(gradient[i], weight[i], ({elements}), h)
"""

# The step is taken as the difference of the two weights and not from the rule: a second use of the rule's product would change
# which sum the compiler fuses it with, and so the bits of the weight. Short runs are summed in the dtype itself, since the
# conversion of each element to float64 would cost more than the update, and the runs in float64.
_CHUNK_STATISTICS = """
@inner
def run({arrays}, h):
    wide_vectors()
    gg = ss = ww = gv = dtype(0)
    for i in range(weight.size):
        g, w = gradient[i], weight[i]
        weight[i], ({elements}) = apply(g, w, ({elements}), h)
        s = w - weight[i]
        gg = add_product(gg, g, g)
        ss = add_product(ss, s, s)
        ww = add_product(ww, w, w)
        gv = add_product(gv, g, {velocity})
    return float64(gg), float64(ss), float64(ww), float64(gv)


@inner
def chunk({arrays}, h, sums):
    wide_vectors()
    for start in range(0, weight.size, {run_length}):
        end = start + {run_length}
        gg, ss, ww, gv = run({runs}, h)
        sums[0] += gg
        sums[1] += ss
        sums[2] += ww
        sums[3] += gv
"""

# Four runs at once: one alone waits for memory, at four fifths of the speed.
_CHUNK_SQUARES = """
@inner
def chunk({arrays}, h, sums):
    wide_vectors()
    n = gradient.size // 4
    a, b, c, d = gradient[:n], gradient[n : 2 * n], gradient[2 * n : 3 * n], gradient[3 * n :]
    aa = bb = cc = dd = 0.0
    for i in range(n):
        aa = add_product(aa, float64(a[i]), float64(a[i]))
        bb = add_product(bb, float64(b[i]), float64(b[i]))
        cc = add_product(cc, float64(c[i]), float64(c[i]))
        dd = add_product(dd, float64(d[i]), float64(d[i]))
    for i in range(n, d.size):
        dd = add_product(dd, float64(d[i]), float64(d[i]))
    sums[0] = (aa + bb) + (cc + dd)
"""

_ENTRIES = """
@entry
def serial(addresses, gradients, chunks, hyperparameters, first, last, sums):
    wide_vectors()
    last_row = hyperparameters.shape[0] - 1
    for c in range(first, last):
        tensor, start, length = chunks[c, 0], chunks[c, 1] * {itemsize}, chunks[c, 2]
        row = min(tensor, last_row)  # of all tensors, or of each
        h = {hyperparameters}
        chunk(
            array_at(gradients[tensor] + start, length, dtype),{rows}
            h,
            sums[c],
        )


@parallel_entry
def parallel(addresses, gradients, chunks, hyperparameters, bounds, sums):
    for piece in prange(bounds.size - 1):
        serial(addresses, gradients, chunks, hyperparameters, bounds[piece], bounds[piece + 1], sums)
"""


def update_source(slots: int, hyperparameters: Sequence[str], dtype: str, *, statistics: bool) -> str:
    """The module that updates a group by a rule with this many slots and these hyperparameters."""
    return _module(_CHUNK_STATISTICS if statistics else _CHUNK, slots + 1, hyperparameters, dtype)


def squares_source(dtype: str) -> str:
    """The module that takes the sum of squares of the gradients: `addresses` and `hyperparameters` stay unread."""
    return _module(_CHUNK_SQUARES, 0, (), dtype)


def _module(chunk: str, rows: int, hyperparameters: Sequence[str], dtype: str) -> str:
    """The whole text: `rows` is the number of arrays that are written, the weight and the slots."""
    names = ["weight", *(f"slot{i}" for i in range(rows - 1))][:rows]
    elements = "".join(f"{name}[i], " for name in names[1:]).strip()
    scalars = ", ".join(f"hyperparameters[row, {i}]" for i in range(len(hyperparameters)))
    text = f'"""Made by polyak.compile for {dtype}; safe to delete."""\n\n'
    arrays = ["gradient", *names]
    text += chunk.format(
        arrays=", ".join(arrays),
        runs=", ".join(f"{name}[start:end]" for name in arrays),
        run_length=RUN_LENGTH,
        elements=elements,
        velocity="slot0[i]" if rows > 1 else "dtype(nan)",
    )
    text += "\n" + _ENTRIES.format(
        hyperparameters=f"Hyperparameters({scalars})" if scalars else "0",
        itemsize={"float32": 4, "float64": 8}[dtype],
        rows="".join(f"\n            array_at(addresses[{i}, tensor] + start, length, dtype)," for i in range(rows)),
    )
    return text
