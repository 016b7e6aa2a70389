using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>An idling connection of a ladder, and its test.</summary>
internal sealed class Rung(int id, LadderConnection connection, TimeProvider clock)
{
    private TimeSpan _begun = connection.Lifetime - connection.Age;

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

    /// <summary>When the running test began, by the clock's timestamps.</summary>
    public long TestBegan { get; private set; }

    /// <summary>The occasion on which it may have been lost together with all others, whatever its age; 0: none.</summary>
    public int Occasion { get; set; }

    /// <summary>It takes no part in the plan any more.</summary>
    public bool IsWitness { get; set; }

    /// <summary>Time from its making to the start of the present gap: earlier gaps and their tests.</summary>
    public TimeSpan Spent { get; private set; }

    /// <summary>
    /// How long nothing had been sent from this side when the present gap began: the peer's own segments began it, which may not
    /// count on the path. Zero where this side began it.
    /// </summary>
    public TimeSpan Before => Connection.Lifetime - Connection.Age - _begun;

    public void Begin(CancellationToken cancellation)
    {
        TestedAt = Connection.Age;
        TestBegan = clock.GetTimestamp();
        Test = Connection.TestAsync(cancellation);
    }

    public void Restart()
    {
        Spent = _begun = Connection.Lifetime - Connection.Age;
        Occasion = 0;
        TestedAt = null;
        Test = null;
        Target = null;
    }
}
