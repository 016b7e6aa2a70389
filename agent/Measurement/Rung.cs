using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>An idling connection of a ladder, and its test.</summary>
internal sealed class Rung(int id, LadderConnection connection, TimeProvider clock)
{
    private readonly long _made = clock.GetTimestamp();

    /// <summary>How often the peer moves segments on it of its own accord.</summary>
    public PeerRhythm Peer { get; } = new();

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

    /// <summary>Time from its making to the start of the present gap: earlier gaps and their tests.</summary>
    public TimeSpan Spent { get; private set; }

    public void Begin(CancellationToken cancellation)
    {
        TestedAt = Connection.Age;
        Test = Connection.TestAsync(cancellation);
    }

    public void Restart()
    {
        Spent = clock.GetElapsedTime(_made) - Connection.Age;
        TestedAt = null;
        Test = null;
        Target = null;
    }
}
