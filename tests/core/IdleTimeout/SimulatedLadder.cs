using Sidecar.Agent.Core.Judgement.IdleTimeout;

namespace Sidecar.CoreTests.IdleTimeout;

/// <summary>Runs a <see cref="LadderPlan"/> against a router with a known timeout, in virtual time.</summary>
internal sealed class SimulatedLadder(TimeSpan timeout, LadderSettings settings)
{
    // What the real tests take: an answer comes at once, its absence has to be waited for.
    private static readonly TimeSpan Answered = TimeSpan.FromSeconds(0.05);
    private static readonly TimeSpan Unanswered = TimeSpan.FromSeconds(4.5);

    // Every wake-up is late by this.
    private static readonly TimeSpan Late = TimeSpan.FromMilliseconds(7);

    private readonly Dictionary<int, (TimeSpan Since, TimeSpan? TestedAt, TimeSpan? Target)> _idlers = [];

    public TimeSpan Lower { get; private set; }

    public TimeSpan? Upper { get; private set; }

    public TimeSpan Elapsed { get; private set; }

    public int Opened { get; private set; }

    public int MostAtOnce { get; private set; }

    public SimulatedLadder Run()
    {
        for (var steps = 0; ; steps++)
        {
            if (steps > 20_000)
            {
                throw new InvalidOperationException($"no end in sight for T = {timeout}: [{Lower}, {Upper}], {_idlers.Count} idlers");
            }

            var step = LadderPlan.Next(Lower, Upper, [.. _idlers.Select(i => new Idler(i.Key, Elapsed - i.Value.Since, i.Value.TestedAt - i.Value.Since, i.Value.Target))], Opened, settings);
            if (step.Finished)
            {
                return this;
            }

            foreach (var id in step.Useless)
            {
                _idlers.Remove(id);
            }

            foreach (var id in _idlers.Keys.ToArray())
            {
                _idlers[id] = _idlers[id] with { Target = null };
            }

            foreach (var target in step.Targets)
            {
                _idlers[target.Id] = _idlers[target.Id] with { Target = target.Gap };
            }

            for (var i = 0; i < step.Open; i++)
            {
                _idlers.Add(++Opened, (Elapsed, null, null));
            }

            MostAtOnce = Math.Max(MostAtOnce, _idlers.Count);
            if (step.Open == 0)
            {
                Advance();
            }
        }
    }

    private void Advance()
    {
        // Nothing due: it looks again after a while, as the real one does.
        var next = _idlers.Values
            .Select(i => i.TestedAt is { } at ? at + Duration(at - i.Since) : i.Target is { } gap ? i.Since + gap : TimeSpan.MaxValue)
            .Append((Elapsed * 1.01) + TimeSpan.FromSeconds(0.25))
            .Min();
        Elapsed = (next > Elapsed ? next : Elapsed) + Late;
        foreach (var (id, idler) in _idlers.ToArray())
        {
            if (idler.TestedAt is { } at && at + Duration(at - idler.Since) <= Elapsed)
            {
                Finish(id, at - idler.Since);
            }
            else if (idler.TestedAt is null && idler.Target is { } gap && idler.Since + gap <= Elapsed)
            {
                _idlers[id] = idler with { TestedAt = Elapsed };
            }
        }
    }

    private TimeSpan Duration(TimeSpan gap) => gap < timeout ? Answered : Unanswered;

    private void Finish(int id, TimeSpan gap)
    {
        if (gap < timeout)
        {
            Lower = gap > Lower ? gap : Lower;
            _idlers[id] = (Elapsed, null, null);
        }
        else
        {
            Upper = Upper is { } upper && upper < gap ? upper : gap;
            _idlers.Remove(id);
        }
    }
}
