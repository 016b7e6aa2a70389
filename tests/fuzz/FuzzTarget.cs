using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>A reader of something that others write, and the inputs that it is tried with.</summary>
internal abstract class FuzzTarget : IDisposable
{
    /// <summary>Makes and tries one input, all of it drawn from the dice, so that its seed repeats it.</summary>
    /// <exception cref="Exception">Whatever escapes from the code that is tried, or <see cref="WrongException"/>.</exception>
    internal abstract void Try(Dice dice);

    public virtual void Dispose()
    {
    }

    /// <summary>Fails the input where something that must hold does not.</summary>
    /// <exception cref="WrongException">It does not hold.</exception>
    protected static void Hold(bool holds, string what)
    {
        if (!holds)
        {
            throw new WrongException(what);
        }
    }
}

/// <summary>An input was read, and read wrongly.</summary>
internal sealed class WrongException(string message) : Exception(message);

/// <summary>A target and how many inputs of it make a million of them in all.</summary>
/// <param name="Name">For the command line.</param>
/// <param name="Share">Inputs for each one that is asked for: a file costs more than a message.</param>
/// <param name="Make">Makes one; every thread has its own.</param>
internal sealed record FuzzKind(string Name, double Share, Func<FuzzTarget> Make)
{
    /// <summary>All there are.</summary>
    internal static IReadOnlyList<FuzzKind> All { get; } =
    [
        new("netlink", 2, () => new NetlinkTarget()),
        new("sockets", 2, () => new SocketsTarget()),
        new("proc", 3, () => new ProcTarget()),
        new("proc-tree", 0.02, () => new ProcTreeTarget()),
        new("configuration", 1, () => new ConfigurationTarget()),
        new("evidence", 0.1, () => new EvidenceTarget()),
        new("ledger", 0.1, () => new LedgerTarget()),
        new("incidents", 0.1, () => new IncidentsTarget()),
        new("replay", 0.1, () => new ReplayTarget()),
        new("control", 0.2, () => new ControlTarget()),
        new("postgresql", 0.01, () => new PostgreSqlTarget()),
        new("dns", 0.02, () => new DnsTarget()),
    ];
}
