#!/bin/sh
# fuzz/run.sh TARGET [SECONDS]: builds a fuzz target with the pinned stable compiler and lets it run.
# New finds go to fuzz/corpus/TARGET, inputs that break something to fuzz/artifacts/TARGET.
set -eu
cd "$(dirname "$0")"
target=${1:?"name a target: $(ls targets | sed 's/\.rs$//' | tr '\n' ' ')"}
seconds=${2:-300}
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
mkdir -p "corpus/$target" "seeds/$target"
# No sanitizer: our crates forbid unsafe code, and sanitizers need a nightly compiler.
exec cargo fuzz run --fuzz-dir . --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 -dict=dict/json.dict -print_final_stats=1
