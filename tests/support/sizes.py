"""Sizes of the shipped networks, computed from the networks themselves: what ``baselines/sizes.json`` has to hold.

After a change of a network, ``python tests/support/sizes.py`` writes that file anew.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ferbench.execution.inspection import SIZES, size_name
from ferbench.methods import recipes
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where `support` is, if this is run as a program
from support.torch_vision import define_missing_operators

define_missing_operators()  # for networks of timm
PROTOCOLS = {len(one.classes): one for one in map(protocols.load_any, protocols.names()) if isinstance(one, Protocol)}


def computed(name: str, preset: str, protocol: Protocol) -> Any:
    """The sizes of a method, by building its network."""
    method = recipes.resolve(name, preset, protocol.name)
    return json.loads(json.dumps(method.family.describe(method, protocol)))


if __name__ == "__main__":
    lines = []
    for name in recipes.names():
        for preset in recipes.presets(name):
            for classes, protocol in sorted(PROTOCOLS.items()):
                if sizes := computed(name, preset, protocol):
                    print(name, preset, classes, file=sys.stderr)
                    lines.append(
                        f"{json.dumps(size_name(name, preset, classes))}: {json.dumps(sizes, ensure_ascii=False)}"
                    )
    SIZES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
