"""`strongroom pki keep`: the one place that has the authority's key, where the parts run apart.

It makes certificates anew in time, and gives each part a folder with its own and with who is to be trusted, and nothing
else. Parts look at theirs every second, and so does this: what `strongroom pki` does in the authority's folder reaches
all of them within the seconds that it waits for that.
"""

from dataclasses import dataclass
from pathlib import Path

from strongroom.certificates import GATEWAY, PARTS
from strongroom.local.authority import EDGE
from strongroom.local.layout import write_private
from strongroom.local.pki import Pki

# Between two looks, and between two renewals.
LOOK_SECONDS = 1.0
RENEWAL_SECONDS = 60.0


@dataclass(frozen=True)
class HandOut:
    """Gives what is in `pki` to the folders of the parts in `parts`."""

    pki: Pki
    parts: Path

    def once(self) -> list[str]:
        """Brings every folder up to date; the files that were not. Raises OSError."""
        changed = []
        for part in PARTS:
            folder = self.parts / part
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = [self.pki.of(part), *([self.pki.of(EDGE)] if part == GATEWAY else [])]
            # Whom to trust comes first: nobody is shown a certificate that it does not trust yet.
            for file in (self.pki.authorities, *own):
                content = file.read_text()
                target = folder / file.name
                if not target.exists() or target.read_text() != content:
                    write_private(target, content)
                    changed.append(f"{part}/{file.name}")
        return changed
