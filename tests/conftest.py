from __future__ import annotations

from hypothesis import settings

# A deadline on one example would measure the machine.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")
