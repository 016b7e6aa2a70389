using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// What a loss is taken for. Where connections are lost that do not idle, or have heard nothing for a while, something else than time
/// may have ended the others too: an outage, or a router that forgot everything at once.
/// </summary>
/// <param name="findings">Told of it.</param>
/// <param name="comparison">What does not idle.</param>
/// <param name="opener">Opens others in the place of what is lost.</param>
/// <param name="rungs">What idles.</param>
internal sealed class LossJudge(LadderFindings findings, Comparison comparison, LadderOpener opener, Rungs rungs)
{
    private TimeSpan _unheardAt = TimeSpan.MinValue / 2;
    private int _occasion;

    /// <summary>Takes note of whether the path is heard of; several times a second.</summary>
    /// <param name="now">By the ladder's clock, as all times here.</param>
    /// <param name="isDown">A fresh connection has just failed.</param>
    public void Hear(TimeSpan now, bool isDown = false)
    {
        if (isDown || !comparison.IsHeard)
        {
            _occasion += now - _unheardAt > comparison.Overdue ? 1 : 0;
            _unheardAt = now;
        }
    }

    /// <summary>Takes in a loss on a path that is up.</summary>
    /// <param name="rung">What was lost; it has been taken out of the rungs.</param>
    /// <param name="test">Its test.</param>
    /// <param name="tested">When that began.</param>
    /// <param name="now">Now.</param>
    /// <returns>False where everything was lost, and all has to begin anew.</returns>
    /// <exception cref="MeasurementException">A connection could not be had.</exception>
    public async Task<bool> LoseAsync(Rung rung, GapTest test, TimeSpan tested, TimeSpan now, CancellationToken cancellation)
    {
        var endedByItself = test.Survived is not null;
        if (test.Loss == LossKind.Silent && _unheardAt >= tested)
        {
            rung.Occasion = _occasion;
        }

        if (!endedByItself && !await comparison.LivesAsync(cancellation))
        {
            var isEvent = comparison.HasExchange;
            await comparison.ReplaceAsync(opener, isEvent, cancellation);
            if (isEvent)
            {
                findings.NoteEvent("connections in use were lost together with idle ones: what idled at that moment was not counted");
                await rungs.DropAllAsync();
                return false;
            }

            rung.Occasion = ++_occasion;
            foreach (var other in rungs.All)
            {
                other.Occasion = _occasion;
            }
        }

        // A server that nobody logs in to closes by its own clock: that is no evidence about the path. It sees no keepalives, and
        // neither does what counts data only: their clocks have run since the connection was made. A peer's own segments may not
        // count either.
        var isServersOwn = endedByItself && !rung.Connection.HasPayload;
        var hasOwnClock = isServersOwn || (!rung.Connection.HasPayload && (rung.Occasion != 0 || comparison.IsKeepaliveLost));
        var before = rung.Before + (hasOwnClock ? rung.Spent : TimeSpan.Zero);
        var begun = tested - rung.TestedAt!.Value;
        if (test.Survived is { } survived && (!isServersOwn || rung.Spent == TimeSpan.Zero))
        {
            findings.Survive(survived, begun, now);
        }

        findings.Lose(new LadderTrial(test.Lost!.Value + before, false, begun - before, now, rung.Occasion), test.Loss!.Value, !isServersOwn);
        return true;
    }
}
