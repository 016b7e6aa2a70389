using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>The connections of a ladder that idle or are being tested.</summary>
/// <param name="opener">Has the clock, and is told of those that the path has forgotten.</param>
internal sealed class Rungs(LadderOpener opener)
{
    private readonly Dictionary<int, Rung> _byId = [];

    public IReadOnlyCollection<Rung> All => _byId.Values;

    /// <summary>How many there have been.</summary>
    public int Opened { get; private set; }

    public void Add(LadderConnection connection) => _byId.Add(++Opened, new Rung(Opened, connection, opener.Clock));

    /// <summary>Those that take part in the plan, as it sees them.</summary>
    public Idler[] Idlers() => [.. All.Where(r => !r.IsWitness).Select(r => new Idler(r.Id, r.Connection.Age, r.TestedAt, r.Target))];

    /// <summary>Sets the targets of a step, and closes what is of no more use.</summary>
    public async Task FollowAsync(LadderStep step)
    {
        foreach (var id in step.Useless)
        {
            if (_byId.TryGetValue(id, out var rung) && !rung.IsWitness)
            {
                await DropAsync(rung, isLost: true);
            }
        }

        foreach (var rung in All.Where(r => r.Test is null))
        {
            rung.Target = null;
        }

        foreach (var target in step.Targets)
        {
            if (_byId.TryGetValue(target.Id, out var rung))
            {
                rung.Target = target.Gap;
            }
        }
    }

    /// <summary>Closes all of them; waits for their tests.</summary>
    public async Task DropAllAsync()
    {
        foreach (var rung in All.ToArray())
        {
            await DropAsync(rung, isLost: true);
        }
    }

    /// <summary>Tests those whose gap has come.</summary>
    public void BeginDue(CancellationToken cancellation)
    {
        foreach (var rung in All.Where(r => r.Test is null && r.Target is { } gap && r.Connection.Age >= gap))
        {
            rung.Begin(cancellation);
        }
    }

    /// <summary>Waits until a test has ended or a gap has come, at most <paramref name="longest"/>.</summary>
    public async Task PauseAsync(TimeSpan longest, CancellationToken cancellation)
    {
        var pause = longest;
        foreach (var rung in All.Where(r => r.Test is null && r.Target is not null))
        {
            var left = rung.Target!.Value - rung.Connection.Age;
            pause = left < pause ? left : pause;
        }

        if (pause > TimeSpan.Zero)
        {
            var tests = All.Where(r => r.Test is not null).Select(r => (Task)r.Test!);
            await Task.WhenAny(tests.Append(Task.Delay(pause, opener.Clock, cancellation)));
        }
    }

    /// <summary>Closes one; waits for its test.</summary>
    /// <param name="rung">Which.</param>
    /// <param name="isLost">It would linger as an orphan that retransmits its FIN, and on the server; a living one says goodbye.</param>
    public async Task DropAsync(Rung rung, bool isLost = false)
    {
        if (!_byId.Remove(rung.Id))
        {
            return;
        }

        if (rung.Test is Task test)
        {
            await test.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        if (isLost)
        {
            rung.Connection.Socket.AbortOnClose();
            opener.NoteLost(rung.Connection);
        }

        await rung.Connection.DisposeAsync();
    }
}
