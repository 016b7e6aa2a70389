using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>Processes, names and upstreams. Pure.</summary>
internal static class HostFindings
{
    public static IEnumerable<AuditFinding> For(AuditedStack stack) => Unreaped(stack).Concat(Names(stack)).Concat(KeepAlive(stack)).Concat(Database(stack));

    private static IEnumerable<AuditFinding> Unreaped(AuditedStack stack) => stack.Unreaped.Select(parent => new AuditFinding
    {
        Id = "unreaped-children",
        Severity = parent.Zombies >= 100 ? Severity.High : Severity.Medium,
        Program = "process",
        Place = new Place(parent.Parent, 0),
        What = $"{parent.Parent} has {Texts.Number(parent.Zombies)} children that have ended and were not reaped",
        Consequence = "each of them holds a process id until the parent calls wait(2); when there are none left, nothing on this host can start a process",
        Changes = [new Change(new Place(parent.Parent, 0), "wait for children in the program (SIGCHLD, waitpid), or restart it", IsNew: false)],
    });

    private static IEnumerable<AuditFinding> Names(AuditedStack stack)
    {
        foreach (var name in stack.Names)
        {
            if (name.Problem is { } problem)
            {
                yield return new AuditFinding
                {
                    Id = "name-unresolved",
                    Severity = Severity.High,
                    Program = "dns",
                    Place = new Place(name.Source, 0),
                    What = $"{name.Name} has no address: {problem}",
                    Consequence = "nothing can connect to it",
                };
                continue;
            }

            var bad = name.Addresses.Where(address => address.State != AddressState.Alive).ToList();
            if (bad.Count == 0)
            {
                continue;
            }

            var dead = bad.Where(address => address.State == AddressState.Dead).ToList();
            var flapping = bad.Where(address => address.State == AddressState.Flapping).ToList();
            yield return new AuditFinding
            {
                Id = dead.Count > 0 ? "name-dead-address" : "name-flapping-address",
                Severity = Severity.High,
                Program = "dns",
                Place = new Place(name.Source, 0),
                What = $"{name.Name} has {Texts.Number(name.Addresses.Count)} addresses"
                    + (dead.Count > 0 ? $"; dead: {string.Join(", ", dead.Select(one => $"{one.Address} ({one.Detail})"))}" : "")
                    + (flapping.Count > 0 ? $"; now and then: {string.Join(", ", flapping.Select(one => $"{one.Address} ({Texts.Number(one.Connected)} of {Texts.Number(one.Attempts)})"))}" : ""),
                Consequence = dead.Count == name.Addresses.Count
                    ? "nothing can connect to it"
                    : $"about {Texts.Number(100 * dead.Count / name.Addresses.Count)} % of new connections go to an address where nobody is, and wait for a timeout or an error first",
                Changes = [new Change(new Place("the name's records", 0), $"without {string.Join(", ", bad.Select(one => one.Address))}", IsNew: false)],
            };
        }
    }

    /// <summary>A path that forgets, on which nobody sends keepalives in time.</summary>
    private static IEnumerable<AuditFinding> KeepAlive(AuditedStack stack)
    {
        var kernel = stack.Sysctls.Count > 0 ? stack.Sysctls[0] : null;
        foreach (var upstream in stack.Upstreams)
        {
            if (upstream is not { IdleTimeout: { } forgets, KeepaliveIdle: { } keepalive, IsArmed: false } || kernel?.Values.GetValueOrDefault("net.ipv4.tcp_keepalive_time") is not { Value: { } seconds } time
                || seconds < forgets.TotalSeconds)
            {
                continue;
            }

            var right = Math.Max(1, (int)keepalive.TotalSeconds);
            yield return new AuditFinding
            {
                Id = "keepalive-late",
                Severity = Severity.High,
                Program = "conn-sidecar",
                Place = upstream.Place,
                What = $"{upstream.Name}: the path forgets after {Texts.Time(forgets)}, the agent arms no keepalives there, and net.ipv4.tcp_keepalive_time = {Texts.Number(seconds)}",
                Consequence = "a connection that was idle for longer is dead, and the next query on it hangs for a quarter of an hour",
                Changes =
                [
                    new Change(upstream.Place, "keepalive = on, with mode = protect", IsNew: true),
                    new Change(time.Place, $"net.ipv4.tcp_keepalive_time = {Texts.Number(right)}, for programs that switch keepalive on", IsNew: time.Place.Line == 0),
                ],
            };
        }
    }

    private static IEnumerable<AuditFinding> Database(AuditedStack stack) => stack.Upstreams.SelectMany(upstream => upstream.Advice
        .Select(line => line.Split(": ", 3)).Where(parts => parts.Length == 3 && parts[0] == "server").Select(parts => new AuditFinding
        {
            Id = "postgresql-setting",
            Severity = Severity.Low,
            Program = "postgresql",
            Place = upstream.ServerPlace ?? upstream.Place,
            What = $"{upstream.Name}: {parts[1]}",
            Consequence = parts[2],
        }));
}
