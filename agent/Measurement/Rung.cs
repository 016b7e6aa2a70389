using System.Diagnostics;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>An idling connection of a ladder, and its test.</summary>
internal sealed class Rung(int id, LadderConnection connection)
{
    private readonly long _made = Stopwatch.GetTimestamp();
    private TimeSpan _peerRefresh;
    private int _alike;

    /// <summary>The plan's number for it.</summary>
    public int Id { get; } = id;

    public LadderConnection Connection { get; } = connection;

    /// <summary>Age at which it is to be tested.</summary>
    public TimeSpan? Target { get; set; }

    /// <summary>Age at which the running test began.</summary>
    public TimeSpan? TestedAt { get; private set; }

    public Task<GapTest>? Test { get; private set; }

    /// <summary>It takes no part in the plan any more.</summary>
    public bool IsWitness { get; set; }

    /// <summary>Time since its making.</summary>
    public TimeSpan Life => Stopwatch.GetElapsedTime(_made);

    /// <summary>Time from its making to the start of the present gap: earlier gaps and their tests.</summary>
    public TimeSpan Spent { get; private set; }

    /// <summary>The peer has moved segments on it of its own accord after so long.</summary>
    /// <returns>How often it does so; null before the third time in a row at the same distance, as retransmissions never are.</returns>
    public TimeSpan? NotePeerRefresh(TimeSpan age)
    {
        var slack = TimeSpan.FromSeconds(Math.Max(0.5, age.TotalSeconds * 0.1));
        _alike = (age - _peerRefresh).Duration() <= slack ? _alike + 1 : 1;
        _peerRefresh = age;
        return _alike >= 3 ? age : null;
    }

    public void Begin(CancellationToken cancellation)
    {
        TestedAt = Connection.Age;
        Test = Connection.TestAsync(cancellation);
    }

    public void Restart()
    {
        Spent = Life - Connection.Age;
        TestedAt = null;
        Test = null;
        Target = null;
    }
}
