# Completion of `bough` for bash: verbs, VMs, snapshots (by GUID), options, settings and files.
# shellcheck shell=bash disable=SC2207

# Strings of one key in the indented JSON that bough prints.
_bough_strings() {
    sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p"
}

# The commands in a list of them.
_bough_commands() {
    bough help "$@" 2>/dev/null | sed -n 's/^  \([a-z-]*\) .*/\1/p'
}

# Offers what begins like the current word of the lines of its input, quoted for the shell.
_bough_offer() {
    local line
    while IFS= read -r line; do
        [[ $line == "$1"* ]] && COMPREPLY+=("$(printf '%q' "$line")")
    done
}

_bough_offer_files() {
    local IFS=$'\n'
    compopt -o filenames
    COMPREPLY=($(compgen -f -- "$1"))
}

_bough_offer_operand() {
    local verb=$1 word=$2
    case $COMP_CWORD:$verb in
        2:create) ;;
        2:import | 4:export) _bough_offer_files "$word" ;;
        2:*) _bough_offer "$word" < <(bough list --json 2>/dev/null | _bough_strings name) ;;
        3:apply | 3:delete | 3:export | 3:settings | 3:notes | 3:rename-snapshot)
            # The first GUID is the VM's own.
            _bough_offer "${word^^}" < <(bough tree "${COMP_WORDS[2]//\\/}" --json 2>/dev/null |
                _bough_strings guid | sed 1d) ;;
        3:screenshot) _bough_offer_files "$word" ;;
        *:set)
            compopt -o nospace
            _bough_offer "$word" < <(printf '%s=\n' accel append cdrom clock cpu cpus disk display initrd kernel \
                memory nic notes) ;;
    esac
}

# The options that the help of a command explains.
_bough_options() {
    bough "$@" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p'
}

_bough_disk() {
    local word=$1 before=$2 verb=$3
    if [ "$COMP_CWORD" -eq 2 ]; then
        _bough_offer "$word" < <(_bough_commands disk)
        return
    fi
    case $before:$word in
        --format:*) _bough_offer "$word" < <(printf '%s\n' dynamic fixed raw qcow2 vmdk vdi vhdx) ;;
        --source-format:*) _bough_offer "$word" < <(printf '%s\n' vhd raw qcow2 vmdk vdi vhdx) ;;
        *:-*) _bough_offer "$word" < <(_bough_options disk "$verb") ;;
        *) _bough_offer_files "$word" ;;
    esac
}

_bough() {
    local word=$2 before=$3 verb=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ] || { [ "$COMP_CWORD" -eq 2 ] && [ "$verb" = help ]; }; then
        _bough_offer "$word" < <(_bough_commands)
        return
    fi
    if [ "$verb" = disk ]; then
        _bough_disk "$word" "$before" "${COMP_WORDS[2]}"
        return
    fi
    case $before in
        --disk | --cdrom | --kernel | --initrd) _bough_offer_files "$word" ;;
        --display) _bough_offer "$word" < <(printf '%s\n' none vnc) ;;
        --accel) _bough_offer "$word" < <(printf '%s\n' auto kvm tcg) ;;
        --clock) _bough_offer "$word" < <(printf '%s\n' vm host) ;;
        --generation) _bough_offer "$word" < <(printf '%s\n' 1 2) ;;
        *)
            if [[ $word == -* ]]; then
                _bough_offer "$word" < <(_bough_options "$verb")
            else
                _bough_offer_operand "$verb" "$word"
            fi ;;
    esac
}

complete -F _bough bough
