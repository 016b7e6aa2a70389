using System.Net.Sockets;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// After a loss the connections that are older than it have one use left: on one the server speaks first and the hop that
/// has lost it is searched for, and one is tested as a second opinion while there has been one loss only.
/// </summary>
internal sealed class Witnesses(LadderOpener opener, Comparison comparison)
{
    private static readonly TimeSpan HopPatience = TimeSpan.FromSeconds(8);

    private Rung? _forgotten;
    private bool _secondOpinion;
    private Task<bool?> _serverFirst = Task.FromResult<bool?>(null);
    private Task _opinion = Task.CompletedTask;

    /// <summary>Whether data from the server still arrives after the timeout; null when that was not seen.</summary>
    public bool? ServerFirst => _serverFirst.IsCompletedSuccessfully ? _serverFirst.Result : null;

    /// <summary>Where the state is lost; null when that was not asked.</summary>
    public HopFinding? Hop { get; private set; }

    /// <summary>Takes from the rungs that have outlived the shortest loss those that are of use.</summary>
    /// <param name="rungs">What idles or is being tested.</param>
    /// <param name="upper">Shortest gap that was lost.</param>
    /// <param name="losses">Losses so far.</param>
    public void Call(IEnumerable<Rung> rungs, TimeSpan upper, int losses, CancellationToken cancellation)
    {
        if (_forgotten is not null && _secondOpinion)
        {
            return;
        }

        foreach (var rung in rungs.Where(r => r.Test is null && !r.IsWitness && r.Connection.Age >= upper).ToArray())
        {
            if (rung.Connection.Scan(out _) != IdleScan.Idle)
            {
                continue;
            }

            if (_forgotten is null)
            {
                // Nothing is sent on it from this side, so that its probes can find out where it is lost.
                _forgotten = rung;
                rung.IsWitness = true;
                if (rung.Connection is PostgreSqlLadderConnection idle && comparison.Speaker is { } speaker)
                {
                    _serverFirst = comparison.LetServerSpeakAsync(speaker, idle, cancellation);
                }
            }
            else if (!_secondOpinion && losses == 1)
            {
                _secondOpinion = true;
                rung.IsWitness = true;
                rung.Begin(cancellation);
                _opinion = rung.Test!;
            }
        }
    }

    /// <summary>Waits for what is still on its way: a few seconds at most.</summary>
    public Task RestAsync() => Task.WhenAll(_serverFirst, _opinion);

    /// <summary>Where the state is lost, asked on a connection that is lost and on a fresh one. A few seconds at most.</summary>
    /// <param name="rungs">What still idles.</param>
    /// <param name="losses">How connections were lost.</param>
    public async Task FindHopAsync(IReadOnlyCollection<Rung> rungs, IReadOnlyCollection<LossKind> losses)
    {
        if (_forgotten is null || !rungs.Contains(_forgotten) || losses.All(l => l is not (LossKind.Silent or LossKind.Reset)))
        {
            return;
        }

        using var limit = new CancellationTokenSource(HopPatience, opener.Clock);
        try
        {
            await using var living = await opener.OpenPlainAsync(limit.Token);

            // A keepalive can only be fired after a second without traffic.
            await Task.Delay(TimeSpan.FromSeconds(1.1), opener.Clock, limit.Token);
            Hop = await opener.FindHopAsync(_forgotten.Connection, living, limit.Token);
        }
        catch (OperationCanceledException)
        {
            Hop = new HopFinding(null, "the hops took too long to answer");
        }
        catch (SocketException e)
        {
            Hop = new HopFinding(null, $"no connection for comparison: {e.Message}");
        }
    }
}
