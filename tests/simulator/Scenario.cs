using Sidecar.Agent.Core.Judgement;

namespace Sidecar.Simulator;

/// <summary>A verdict and how long it stood.</summary>
/// <param name="Verdict">As it is named everywhere.</param>
/// <param name="For">How long it stood.</param>
internal readonly record struct Stood(string Verdict, TimeSpan For);

/// <summary>A history that is written down, so that the lab can go through it as well.</summary>
internal sealed class Scenario
{
    private readonly List<(Verdict Verdict, TimeSpan Since)> _verdicts = [];
    private int _requests;

    /// <summary>When the worker asks; it connects with its first request.</summary>
    internal required IReadOnlyList<(TimeSpan At, TimeSpan Service)> Requests { get; init; }

    internal required TimeSpan Length { get; init; }

    /// <summary>The router's idle timeout; null: it forgets nothing.</summary>
    internal TimeSpan? RouterForgetsAfter { get; init; }

    /// <summary>When the link to the server is down.</summary>
    internal (TimeSpan From, TimeSpan For)? Outage { get; init; }

    internal TimeSpan ScanInterval { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>How long the server works on the request that was asked last.</summary>
    internal TimeSpan Service => Requests[Math.Max(0, _requests - 1)].Service;

    /// <summary>Goes through it in the simulator and returns the verdicts on the connection, in their order.</summary>
    internal IReadOnlyList<Stood> Simulate()
    {
        new World(this, new Report()).Run();
        return [.. _verdicts.Select((verdict, i) => new Stood(verdict.Verdict.ToName(), (i + 1 < _verdicts.Count ? _verdicts[i + 1].Since : Length) - verdict.Since))];
    }

    /// <summary>When the next request is asked; null where there are no more.</summary>
    internal TimeSpan? NextRequest() => _requests < Requests.Count ? Requests[_requests++].At : null;

    internal void Note(Verdict verdict, TimeSpan now)
    {
        if (_verdicts.Count == 0 || _verdicts[^1].Verdict != verdict)
        {
            _verdicts.Add((verdict, now));
        }
    }
}
