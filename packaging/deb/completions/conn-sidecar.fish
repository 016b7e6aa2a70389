# fish completion for conn-sidecar(8)

# Endpoints of the declared upstreams that name one host (no networks), for those who measure a path.
function __conn_sidecar_endpoints
    set -l files /etc/conn-sidecar/conn-sidecar.conf /etc/conn-sidecar/conf.d/*.conf
    sed -n 's/^[[:space:]]*endpoint[[:space:]]*=//p' $files 2>/dev/null | tr -s ', \t' '\n\n\n' | grep -v /
end

function __conn_sidecar_incidents
    conn-sidecar incidents --json --last 20 2>/dev/null | sed -n 's/^{"id":"\([^"]*\)".*/\1/p'
end

complete -c conn-sidecar -f
complete -c conn-sidecar -l help -d 'Show help'
complete -c conn-sidecar -n __fish_use_subcommand -l version -d 'Print the version'
complete -c conn-sidecar -n __fish_use_subcommand -a run -d 'Run the agent'
complete -c conn-sidecar -n __fish_use_subcommand -a status -d 'Show each watched connection'
complete -c conn-sidecar -n __fish_use_subcommand -a incidents -d 'Show what was done and what was withheld'
complete -c conn-sidecar -n __fish_use_subcommand -a replay -d 'Run the core over what an incident keeps'
complete -c conn-sidecar -n __fish_use_subcommand -a doctor -d 'Show what works on this host'
complete -c conn-sidecar -n __fish_use_subcommand -a check-config -d 'Print the configuration in force or its errors'
complete -c conn-sidecar -n __fish_use_subcommand -a measure -d 'Measure when a path forgets'
complete -c conn-sidecar -n __fish_use_subcommand -a audit -d 'Read the configuration of the stack'
complete -c conn-sidecar -n __fish_use_subcommand -a version -d 'Print the version'

complete -c conn-sidecar -n '__fish_seen_subcommand_from run status incidents replay doctor check-config audit' -s c -l config -r -F -d 'Configuration file'
complete -c conn-sidecar -n '__fish_seen_subcommand_from status incidents replay doctor check-config measure audit' -l json -d 'For programs'

complete -c conn-sidecar -n '__fish_seen_subcommand_from incidents' -s n -l last -x -d 'Only the newest'

complete -c conn-sidecar -n '__fish_seen_subcommand_from replay' -l all -d 'Each incident, a line for each'
complete -c conn-sidecar -n '__fish_seen_subcommand_from replay' -l file -r -F -d 'Read the incident from a file'
complete -c conn-sidecar -n '__fish_seen_subcommand_from replay' -a '(__conn_sidecar_incidents)'

complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -a '(__conn_sidecar_endpoints)'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l protocol -x -a 'tcp postgresql' -d 'What the server speaks'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l dsn-file -r -F -d 'File with a connection string'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l max -x -d 'Longest gap to try'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l precision -x -d 'When bounds are close enough'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l share -x -d 'Connections at most'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l payload -x -d 'Send this in each gap'
complete -c conn-sidecar -n '__fish_seen_subcommand_from measure' -l http -x -d 'How long a silent response survives'

complete -c conn-sidecar -n '__fish_seen_subcommand_from audit' -l balancer -x -d 'Address in front of the stack'
complete -c conn-sidecar -n '__fish_seen_subcommand_from audit' -l balancer-timeout -x -d 'Its timeout'
complete -c conn-sidecar -n '__fish_seen_subcommand_from audit' -l request -x -d 'Longest request that is wanted'
complete -c conn-sidecar -n '__fish_seen_subcommand_from audit' -l file -x -a 'haproxy= nginx= apache= squid= uwsgi= gunicorn=' -d 'A configuration file'
complete -c conn-sidecar -n '__fish_seen_subcommand_from audit' -l root -x -a '(__fish_complete_directories)' -d 'Read the files of another root'
