"""Where the files that are no Python lie: in a checkout beside `src`, in a wheel inside the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_resources"
_IN_CHECKOUT = _PACKAGE.parent.parent


def folder(name: str) -> Path:
    """The folder `sql`, `migrations`, `templates` or `examples`."""
    for root in (_IN_WHEEL, _IN_CHECKOUT):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"this installation of Stellwerk has no folder {name!r}; install the package again")
