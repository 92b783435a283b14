# Runs a program in a mount namespace of its own, in which system directories look as the test wants them and can be written to:
# nothing of it reaches the machine.
#
#   stage.sh DIRECTORY TREE SCRIPT WORDS...
#
# DIRECTORY is empty and becomes the place of what is written. TREE, if it is not "-", is an unpacked package, laid over the system.
# SCRIPT prepares the system, and WORDS are then run.
set -eu
directory=$1 tree=$2 script=$3
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$directory"
for part in etc usr var run; do
    mkdir -p "$directory/$part/upper" "$directory/$part/work"
    lower=/$part
    [ ! -d "$tree/$part" ] || lower=$tree/$part:/$part
    mount -t overlay -o "lowerdir=$lower,upperdir=$directory/$part/upper,workdir=$directory/$part/work" none "/$part"
done
. "$script"
exec "$@"
