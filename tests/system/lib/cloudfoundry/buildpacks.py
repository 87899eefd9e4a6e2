"""Other buildpacks, and how the platform unpacks one.

Their scripts do no more than the contract requires,
https://docs.cloudfoundry.org/buildpacks/custom.html.
"""

import zipfile
from pathlib import Path

SUPPLY = r"""#!/bin/sh
printf 'name: other\nversion: 1.0.0\n' >"$3/$4/config.yml"
"""

FINALIZE = r"""#!/bin/bash
# Like libbuildpack: the directory of the last buildpack comes first.
set -euo pipefail
deps=$3 profile=$5
shopt -s nullglob
export_all() { # variable, directory
    local dir index list=
    for dir in "$deps"/*/"$2"; do
        index=${dir#"$deps/"}
        list="\$DEPS_DIR/${index%%/*}/$2${list:+:$list}"
    done
    [ -z "$list" ] || echo "export $1=\"$list\${$1:+:\$$1}\""
}
{
    export_all PATH bin
    export_all LD_LIBRARY_PATH lib
    export_all LIBRARY_PATH lib
} >"$profile/000_multi-supply.sh"
for script in "$deps"/*/profile.d/*; do
    index=${script#"$deps/"}
    cp "$script" "$profile/${index%%/*}_${script##*/}"
done
"""

RELEASE = r"""#!/bin/sh
web='exec python3 -m http.server $PORT'
if [ -f "$1/config.ru" ]; then
    web='exec rackup -E production -p $PORT config.ru'
fi
echo "default_process_types: {web: '$web'}"
"""


def write_supplying(path):
    """A buildpack that supplies nothing."""
    _write(path, supply=SUPPLY)


def write_final(path):
    """A buildpack that serves Ruby apps and static files."""
    _write(path, finalize=FINALIZE, release=RELEASE)


def _write(path, **scripts):
    (path / "bin").mkdir(parents=True)
    for name, text in scripts.items():
        script = path / "bin" / name
        script.write_text(text)
        script.chmod(0o755)


def unzip(archive, into):
    """Like the platform: each file gets the mode of its entry."""
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            path = Path(opened.extract(entry, into))
            path.chmod(0o755 if entry.is_dir() else entry.external_attr >> 16)
