#!/usr/bin/env bash
# usage: tests/install/story.sh [--json FILE] [--system debian-12|ubuntu-24.04]... [--short]
#
# Tells the life of an installation on real systemd machines that it makes itself: bad bundles refused, an install cut
# off by the power, install without a network, units, enrolment by six words, a first round, reboot, upgrade during a
# round, downgrade refused, two upgrades broken on purpose, rollback, uninstall; then on a server that has no engine, and
# from the tree and a package index through a proxy (where none answers, it says so and goes on). Releases 0.2.0 to 0.2.3
# are built from the committed tree and signed with a key made for it. Needs root, the engine with Cloister's images, and
# the first time a Debian and an Ubuntu mirror (a root folder each, kept in /var/cache/cloister-machines or
# $CLOISTER_MACHINES).
#
#   --json FILE    where the figures go: machines, and for each install_s, enrol_s, upgrade_s, rollback_s, reboot_ok,
#                  offline_ok, left_behind, security, and more
#   --system NAME  only this one (default: each that can be made)
#   --short        no jobs, no Debian packages, no interrupted install, no other ways to install: what CI runs
#   --help         this text
#
# Exit codes: 0 done · 1 a chapter went otherwise than it should · 2 wrong usage · 5 no machine can be made here.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../deploy/lib/say.sh"
only_told "$@"
cd "$repo"
venv="$(deploy/lib/environment.sh dev)"
PYTHONPATH="$PWD" exec "$venv/bin/python" -m tests.install.telling "$@"
