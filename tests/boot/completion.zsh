# What zsh offers for a line: zsh -f completion.zsh DIRECTORY-OF-COMPLETIONS LINE
# A line editor works on a terminal alone, so it gets one; instead of listing, what would be added is written, a line each.
zmodload zsh/zpty
zpty edit zsh -f -i
zpty -w edit "PS1= PROMPT_EOL_MARK= ; stty -echo -onlcr; bindkey '^I' complete-word; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; zstyle ':completion:*' verbose no
compadd() {
  if (( \${@[(I)-[OAD]]} )); then builtin compadd \"\$@\"; return; fi
  local -a offered
  builtin compadd -O offered \"\$@\"
  (( \$#offered )) && print -rl -- OFFERED:\${^offered}
  return 1
}
show() { print BEGUN; _main_complete; print ENDED; exit }
zle -C complete-word complete-word show
zle-line-init() { print READY }
zle -N zle-line-init"
zpty -r edit line '*READY*'
zpty -n -w edit "$2"$'\t'
zpty -r edit line '*ENDED*'
print -r -- "$line" | tr -d '\r' | sed -n 's/^.*OFFERED://p' | sort -u
