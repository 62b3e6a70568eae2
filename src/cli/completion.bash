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
    COMPREPLY+=($(compgen -f -- "$1"))
}

# The GUIDs of a VM's snapshots; the first GUID of the tree is the VM's own.
_bough_offer_snapshots() {
    _bough_offer "${2^^}" < <(bough tree "${1//\\/}" --json 2>/dev/null | _bough_strings guid | sed 1d)
}

# The `operands` before the current word: options are left out, and the values of those that have one.
_bough_operands() {
    local verb=$1 word valued=" "
    local -a words=("${COMP_WORDS[@]:2:COMP_CWORD-2}")
    operands=()
    if [[ ${words[*]} == *-* ]]; then
        valued+=$(bough "$verb" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\) [^ ].*/\1/p' | tr '\n' ' ')
    fi
    while [ "${#words[@]}" -gt 0 ]; do
        word=${words[0]} words=("${words[@]:1}")
        case $word in
            -*)
                [ "${words[0]-}" != = ] || words=("${words[@]:1}") # --name=TEXT is three words here
                [[ $valued != *" $word "* ]] || words=("${words[@]:1}") ;;
            *) operands+=("$word") ;;
        esac
    done
}

_bough_offer_operand() {
    local verb=$1 word=$2
    _bough_operands "$verb"
    case ${#operands[@]}:$verb in
        0:create) ;;
        0:import | 2:export) _bough_offer_files "$word" ;;
        0:*) _bough_offer "$word" < <(bough list --json 2>/dev/null | _bough_strings name) ;;
        1:export)
            _bough_offer_snapshots "${operands[0]}" "$word"
            _bough_offer_files "$word" ;;
        1:apply | 1:delete | 1:settings | 1:notes | 1:rename-snapshot) _bough_offer_snapshots "${operands[0]}" "$word" ;;
        1:screenshot) _bough_offer_files "$word" ;;
        *:set)
            compopt -o nospace
            _bough_offer "$word" < <(printf '%s=\n' accel append cdrom clock cpu cpus disk display initrd kernel \
                machine memory nic notes) ;;
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
    local -a operands
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        _bough_offer "$word" < <(_bough_commands && echo help)
        return
    fi
    if [ "$verb" = help ]; then
        case $COMP_CWORD:$before in
            2:*) _bough_offer "$word" < <(_bough_commands) ;;
            3:disk) _bough_offer "$word" < <(_bough_commands disk) ;;
        esac
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
        --from)
            _bough_operands "$verb"
            _bough_offer_snapshots "${operands[0]}" "$word" ;;
        *)
            if [[ $word == -* ]]; then
                _bough_offer "$word" < <(_bough_options "$verb")
            else
                _bough_offer_operand "$verb" "$word"
            fi ;;
    esac
}

complete -F _bough bough
