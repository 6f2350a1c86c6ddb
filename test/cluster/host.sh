# The init of a host, run by bash in namespaces of its own (see namespace.go). HOST_NAME is the host's name, empty for the
# network's switch, which needs no file system. HOST_DISK is its disk, HOST_CLUSTER the folder with all hosts' disks,
# HOST_SOFTWARE folders to be seen, one a line, HOST_SHARED the folder that all write to, HOST_KEEP set when the host outlives
# who started it.
set -euo pipefail

if [ -n "$HOST_NAME" ]; then
  mount --make-rprivate /
  mount -t proc proc /proc
  echo "$HOST_NAME" >/proc/sys/kernel/hostname

  # The disks of this machine, which are to be read only; listed before ours are mounted.
  disks=$(awk '$3 ~ /^(ext[234]|xfs|btrfs|zfs|f2fs|overlay|9p|virtiofs)$/ { print $2 }' /proc/self/mounts)

  # Everything to be kept is mounted below the host's own /tmp while it can still be seen; then that covers the machine's.
  tmp=$HOST_DISK/tmp
  mount --bind "$tmp" "$tmp"
  while read -r folder; do
    case $folder in
      /tmp/*)
        if [ -d "$folder" ]; then
          mkdir -p "$HOST_DISK$folder"
        else
          mkdir -p "$(dirname "$HOST_DISK$folder")"
          touch "$HOST_DISK$folder"
        fi
        mount --bind "$folder" "$HOST_DISK$folder"
        mount -o remount,bind,ro "$HOST_DISK$folder"
        ;;
    esac
  done <<<"$HOST_SOFTWARE"
  if [ -n "${HOST_SHARED:-}" ]; then
    mkdir -p "$tmp/shared"
    mount --bind "$HOST_SHARED" "$tmp/shared"
  fi
  mount --bind "$HOST_DISK/etc-hosts" /etc/hosts
  mount --bind "$HOST_DISK/var-tmp" /var/tmp
  while read -r disk; do
    # Mount points may hold blanks, written \040.
    mount -o remount,bind,ro "$(printf '%b' "$disk")"
  done <<<"$disks"
  mount --rbind "$tmp" /tmp
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  # The other hosts' disks, where they can still be seen.
  if [ -d "$HOST_CLUSTER" ]; then
    mount -t tmpfs -o ro,size=4k tmpfs "$HOST_CLUSTER"
  fi
fi

echo ready
exec >/dev/null
# As the init it is the parent of every orphan; bash waits for those of itself. It ends, and with it the host, when its
# standard input does; a host that is kept gets one that never ends, a pipe whose other end it holds itself.
if [ -n "${HOST_KEEP:-}" ]; then
  exec 0<> <(:)
fi
read -r _ || true
