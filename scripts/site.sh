#!/bin/bash
# Makes the documentation site from README.md and docs/, with mdBook, in target/site/book.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.4.52
tools=$PWD/target/tools
if [ "$("$tools/bin/mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
    cargo install --locked --quiet --root "$tools" --version "$version" mdbook
fi

rm -rf target/site
mkdir -p target/site/src
cp -r docs/. target/site/src
repository=https://github.com/etcdproxy/etcdproxy/blob/main
# Links to pages stay on the site; all others lead to the repository.
sed -E -e 's#\]\(docs/#](#g' -e "s#\]\(([A-Z]+(\.md)?)\)#](${repository}/\1)#g" -e "s#\]\(\.\./#](${repository}/#g" README.md \
    >target/site/src/introduction.md
sed -i -E "s#\]\(\.\./#](${repository}/#g" target/site/src/*.md
sed -i '2i [etcdproxy](introduction.md)\n' target/site/src/SUMMARY.md
cat >target/site/book.toml <<END
[book]
title = "etcdproxy"
language = "en"

[output.html]
git-repository-url = "https://github.com/etcdproxy/etcdproxy"
no-section-label = true
END
"$tools/bin/mdbook" build target/site
echo "$PWD/target/site/book/index.html"
