#!/bin/bash
# Guest side of `python -m tests.vm serve DIR`: runs every DIR/in/NAME.sh, answers in DIR/out.
cd "${BASH_SOURCE[0]%/*}" || exit
# A read that times out waits without starting a process.
exec 9<> <(:)
cut -d' ' -f1 /proc/uptime > ready
shopt -s nullglob
while [[ ! -e stop ]]; do
    for job in in/*.sh; do
        name=${job#in/} name=${name%.sh}
        mv "$job" "in/$name.taken"
        (
            cd / && setsid -w bash "$OLDPWD/in/$name.taken" > "$OLDPWD/out/$name.out" 2>&1 < /dev/null
            echo $? > "$OLDPWD/out/$name.rc.new"
            mv "$OLDPWD/out/$name.rc.new" "$OLDPWD/out/$name.rc"
        ) &
    done
    read -r -t 0.2 -u 9
done
