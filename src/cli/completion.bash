# Completion of `bough` for bash: verbs, VMs, snapshots (by GUID, or by name once typed), options and files.
# shellcheck shell=bash disable=SC2207

# Strings of one key in the indented JSON that bough prints.
_bough_strings() {
    sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p"
}

_bough() {
    local current=$2 previous=$3 verb=${COMP_WORDS[1]} IFS=$'\n'
    COMPREPLY=()

    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$(bough help 2>/dev/null | sed -n 's/^  \([a-z-]*\) .*/\1/p')" -- "$current"))
        return
    fi
    case $verb in
        help) COMPREPLY=($(compgen -W "$(bough help 2>/dev/null | sed -n 's/^  \([a-z-]*\) .*/\1/p')" -- "$current"))
            return ;;
        disk)
            if [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=($(compgen -W "$(bough help disk 2>/dev/null | sed -n 's/^  \([a-z-]*\) .*/\1/p')" -- "$current"))
            else
                COMPREPLY=($(compgen -f -- "$current"))
            fi
            return ;;
    esac
    case $previous in
        --disk | --cdrom | --kernel | --initrd) COMPREPLY=($(compgen -f -- "$current")) && return ;;
        --display) COMPREPLY=($(compgen -W $'none\nvnc' -- "$current")) && return ;;
        --accel) COMPREPLY=($(compgen -W $'auto\nkvm\ntcg' -- "$current")) && return ;;
        --clock) COMPREPLY=($(compgen -W $'vm\nhost' -- "$current")) && return ;;
        --generation) COMPREPLY=($(compgen -W $'1\n2' -- "$current")) && return ;;
    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$(bough help "$verb" 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p')" -- "$current"))
    elif [ "$COMP_CWORD" -eq 2 ] && [ "$verb" != create ]; then
        COMPREPLY=($(compgen -W "$(bough list --json 2>/dev/null | _bough_strings name)" -- "$current"))
    elif [ "$COMP_CWORD" -eq 3 ]; then
        case $verb in
            apply | delete | settings | notes | rename-snapshot)
                COMPREPLY=($(compgen -W "$(bough tree "${COMP_WORDS[2]}" --json 2>/dev/null | _bough_strings guid |
                    sed 1d)" -- "${current^^}")) ;;
            set) COMPREPLY=($(compgen -S = -W $'accel\nappend\ncdrom\nclock\ncpu\ncpus\ndisk\ndisplay\ninitrd\nkernel\nmemory\nnic\nnotes' \
                -- "$current")) ;;
            screenshot) COMPREPLY=($(compgen -f -- "$current")) ;;
        esac
    fi
}

complete -F _bough bough
