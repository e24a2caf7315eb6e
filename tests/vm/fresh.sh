#!/bin/bash
# fresh.sh RESULTS [HERE:THERE…]: in the root file system RESULTS/root.tar, types README's commands in a clone of this
# repository, first as root and then as an ordinary user.  The pairs are files and directories that pip needs to find
# packages where this machine finds them.  Runs in a mount namespace of its own.
set -euo pipefail
results=$1 && shift
root=$results/root
port=9387

mkdir "$root"
tar --directory "$root" --extract --file "$results/root.tar"
rm "$results/root.tar"
mv "$results/clone" "$root/srv/clone"
mount --bind "$root" "$root"  # a mount point, as / is: or nobody in it could change how mounts are propagated
for directory in dev proc sys; do mount --rbind "/$directory" "$root/$directory"; done
mount -t tmpfs tmpfs "$root/tmp" -o mode=1777
for pair; do
	if [[ -d ${pair%%:*} ]]; then mkdir -p "$root${pair#*:}"; else install -D /dev/null "$root${pair#*:}"; fi
	mount --bind "${pair%%:*}" "$root${pair#*:}"
done
for file in /etc/resolv.conf /etc/hosts /etc/apt/apt.conf.d; do
	mkdir -p "$root${file%/*}"
	cp -rT "$file" "$root$file"
done

inside() { env -i HOME="$1" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot --userspec="$2" "$root" bash -euc "cd /srv/clone; $3"; }

inside /root 0:0 "
	make run ARGS='--port $port --store none' >/tmp/agent.log 2>&1 &
	trap \"kill \$!; wait\" EXIT
	for _ in \$(seq 300); do
		(exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null && break
		sleep 1
	done
	python3 - <<-'EOP' || { cat /tmp/agent.log; exit 1; }
		import json, os, subprocess, urllib.request
		def post(path, body):
		    asked = urllib.request.Request('http://127.0.0.1:$port' + path, json.dumps(body).encode(),
		                                   {'Content-Type': 'application/json'})
		    return json.load(urllib.request.urlopen(asked))
		labels = dict.fromkeys(('scenario', 'impl', 'variant', 'commit', 'dataset'), 'x')
		post('/start', labels | {'pid': os.getpid()})
		for _ in range(53):
		    subprocess.run(['/bin/true'])
		evidence = post('/stop', {})
		assert evidence['exec']['exec_count'] == 53, evidence['exec']
		print('evidence:', evidence['available'], evidence['source'], evidence['exec']['exec_count'], 'execs')
	EOP
"
status=0  # both users' suites are run, whatever the first says
inside /root 0:0 "make test PYTEST_ARGS='-q --color=no -p no:cacheprovider'" || status=$?

chroot "$root" useradd --create-home visitor
chroot "$root" chown -R visitor: /srv/clone
inside /home/visitor visitor: "make test PYTEST_ARGS='-q --color=no -p no:cacheprovider'" || status=$?
exit $status
