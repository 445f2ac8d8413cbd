"""Run-time checks of shapes and dtypes, from the annotations, for the mathematics rooms. Users do not pay for them."""

from jaxtyping import install_import_hook

# Before the first import of these packages: only modules that are imported later are checked.
install_import_hook(
    [
        "align.groups",
        "align.objectives",
        "align.advantages",
        "align.shaping",
        "align.rewards",
        "align.statistics",
        "align.types",
    ],
    "beartype.beartype",
)
