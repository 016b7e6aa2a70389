using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using CoreReport = Sidecar.Agent.Core.Remedies.Report;

namespace Sidecar.Simulator;

/// <summary>Holds what the agent does against what is true, which it cannot see.</summary>
internal sealed class Referee(World world, Report report)
{
    /// <summary>In the state <see cref="Verdict.Partly"/> a connection may be closed after so long a silence: a new one takes another leg.</summary>
    private static readonly TimeSpan PatienceOnDeadLeg = TimeSpan.FromSeconds(30);

    /// <summary>
    /// What it takes to close one that was asked: beyond the time in which an answer may come, a connect probe that began after the
    /// question, and two ticks.
    /// </summary>
    private static readonly TimeSpan TimeToClose = TimeSpan.FromMilliseconds(300);

    private readonly Dictionary<string, List<TimeSpan>> _terminations = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<TimeSpan>> _braked = new(StringComparer.Ordinal);
    private readonly List<SimulatedProcess> _terminating = [];

    /// <summary>What stands in the state directory.</summary>
    internal List<Incident> Incidents { get; } = [];

    /// <summary>A new agent: it follows nothing that the one before had under way.</summary>
    internal void AgentRestarted() => _terminating.Clear();

    /// <summary>A connection was judged and acted on: what is stuck is acted on, or withheld for a reason, or waits for a connect probe.</summary>
    internal void Judged(TrackedConnection tracked, TimeSpan now)
    {
        world.Scenario?.Note(tracked.Judged.Verdict, now);
        if (tracked.Judged.Verdict == Verdict.Stuck && tracked.Case is null)
        {
            report.Violation(world, now, "unexplained", $"{tracked.Key.Local} is stuck, and nothing is planned");
        }

        if (world.IsTracing && tracked.Judged.Verdict is Verdict.Suspect or Verdict.Outage or Verdict.Stuck or Verdict.Partly or Verdict.Expired)
        {
            world.Trace(now, $"    {tracked.Key.Local} {(world.Of(tracked).IsLive(now) ? "LIVE" : "dead")} {tracked.Judged.Verdict.ToName()}: {Words(tracked, now)}");
        }
    }

    /// <summary>The agent tells something.</summary>
    internal void Note(CoreReport told, TimeSpan now)
    {
        switch (told)
        {
            case WithheldReport withheld:
                report.Withheld[withheld.Guardrail]++;
                break;
            case IncidentReport { Incident: var incident, Stage: var stage }:
                if (incident.Why.Length == 0)
                {
                    report.Violation(world, now, "unexplained", $"{incident.Cause}: {incident.Remedy} without words");
                }

                if (stage == IncidentStage.Begun && incident.Remedy == "terminate")
                {
                    Incidents.Add(incident);
                }
                else if (stage == IncidentStage.Begun)
                {
                    report.Stuck += incident.Cause == "stuck" ? 1 : 0;
                }

                break;
            case RecycleDidNotHelpReport:
                report.DidNotHelp++;
                break;
        }
    }

    /// <summary>At the last moment a connection was not as it was judged.</summary>
    internal void Recovered() => report.Recovered++;

    /// <summary>A connection is destroyed.</summary>
    internal void Recycled(TrackedConnection tracked, SimulatedConnection connection, TimeSpan now)
    {
        report.Recycled++;
        report.Expired += tracked.Judged.Verdict == Verdict.Expired ? 1 : 0;
        if (world.Configuration.Agent.Mode == AgentMode.Observe)
        {
            report.Violation(world, now, "observe", $"{connection} was recycled in observe mode");
        }

        if (connection.IsLive(now))
        {
            if (tracked.Judged.Verdict == Verdict.Partly && now - tracked.SilenceStart >= PatienceOnDeadLeg && connection.Path.IsLegDown(connection.Leg, now))
            {
                report.ClosedOnDeadLeg++;
            }
            else if (tracked.Judged.Verdict == Verdict.Partly && now - tracked.SilenceStart >= PatienceOnDeadLeg && LegReturnedSinceAsked(connection, now))
            {
                report.ClosedAsLegReturned++;
                world.Trace(now, $"{connection} was recycled alive: its leg has come back since it was asked {(now - connection.AskedAt).TotalSeconds:0.000} s ago");
            }
            else if (connection.IsInHole && !world.ProbesPermitted)
            {
                report.ClosedInHole++;
            }
            else if (connection.Path.LegDiedBefore(now) < PatienceOnDeadLeg && tracked.User.Evidence(now, now).DeadLeg == 0)
            {
                report.ClosedOnUnknownLeg++;
                world.Trace(now, $"{connection} was recycled alive: its leg is dead, and the path had not shown yet that it has several");
            }
            else
            {
                report.WrongRecycle(world, connection.Path, now, $"{connection} was recycled alive ({tracked.Judged.Verdict.ToName()}); {connection.Path.Conditions}; {Words(tracked, now)}");
            }
        }

        if (connection.Path.IsDown(now))
        {
            // A server that accepts nobody while it answers its connections is no outage: neighbours prove the path.
            CheckOutage(connection, now, "recycled");
        }

        var tally = tracked.Upstream.Tally;
        if (tally.Silent >= CommonModeBrake.Crowd && tally.Silent * 2 > tally.Total)
        {
            CheckRate(tracked.Upstream.Name, now);
        }
    }

    /// <summary>The core wants a process ended; whether it can be is seen afterwards. It has to be the one that is blocked on the connection.</summary>
    internal void TerminationAsked(SimulatedProcess worker, SimulatedConnection connection, TimeSpan now)
    {
        if (worker != connection.Thread.Process)
        {
            report.WrongTermination(world, now, "bystander", $"{worker.Identity.Pid} was to be terminated for a connection of {connection.Thread.Process.Identity.Pid}");
        }
        else if (worker.IsStopped(now))
        {
            report.WrongTermination(world, now, "stopped", $"{worker.Identity.Pid} was to be terminated while it was stopped");
        }
        else if (!connection.Thread.IsBlockedOn(connection))
        {
            report.WrongTermination(world, now, "not blocked", $"{worker.Identity.Pid} was to be terminated, and does not wait for {connection}");
        }
    }

    /// <summary>A process is sent SIGTERM.</summary>
    internal void Terminated(Terminate terminate, SimulatedProcess worker, SimulatedConnection connection, TimeSpan now)
    {
        var tracked = terminate.Connection;
        report.Terminated++;
        if (worker.Owner.Workers is not { Terminate: true } section)
        {
            report.WrongTermination(world, now, "unnamed", $"{worker.Identity.Pid} was terminated, and no section names it");
            return;
        }

        if (world.Configuration.Agent.Mode == AgentMode.Observe)
        {
            report.Violation(world, now, "observe", $"{worker.Identity.Pid} was terminated in observe mode");
        }

        if (worker.Shown.Count > 1)
        {
            report.WrongTermination(world, now, "shared", $"{worker.Identity.Pid} was terminated for a socket that another process holds as well");
        }

        if (!terminate.IsRecycled && connection.IsLive(now))
        {
            report.WrongTermination(world, now, "live", $"{worker.Identity.Pid} was terminated for a connection that lives; {connection.Path.Conditions}; {Words(tracked, now)}");
        }

        // A quarter of a second before and after belongs to the request that hung.
        var stall = tracked.Case!.StallStart;
        if (worker.LastProgress > stall + TimeSpan.FromMilliseconds(250))
        {
            report.WrongTermination(world, now, "progress", $"{worker.Identity.Pid} was terminated, and had an answer {now - worker.LastProgress} before, {worker.LastProgress - stall} into the stall");
        }

        CheckOutage(connection, now, "the ground for a termination");
        var spent = _terminations.TryGetValue(section.Name, out var list) ? list : _terminations[section.Name] = [];
        spent.Add(now);
        if (spent.Count(at => now - at < section.Budget.Period) > section.Budget.Count)
        {
            report.Violation(world, now, "budget", $"more than {section.Budget.Count} terminations in {section.Budget.Period}");
        }

        _terminating.RemoveAll(static other => !other.Alive);
        if (_terminating.Any(other => other.Owner.Workers == section && other != worker))
        {
            report.Violation(world, now, "two", $"two terminations at a time in {section.Name}");
        }

        _terminating.Add(worker);
        world.Trace(now, $"{worker.Identity.Pid} is terminated");
    }

    /// <summary>
    /// Its leg was dead when it was asked, and whoever waits for the answer and makes sure of the path acts no sooner than now: that the leg
    /// has come back meanwhile no packet can have told.
    /// </summary>
    private static bool LegReturnedSinceAsked(SimulatedConnection connection, TimeSpan now) =>
        connection.Path.IsLegDown(connection.Leg, connection.AskedAt)
        && now - connection.AskedAt <= Silence.DelayedAcknowledgement + (connection.Path.RoundTrip * 2) + TimeToClose;

    private static string Words(TrackedConnection tracked, TimeSpan now) =>
        $"{Explanation.Of(tracked, now)}; {tracked.Evidence(now).Stall?.ConfirmedFailures} confirmed, rate {tracked.User.Loss.RateAt(now):0.000}, odds {tracked.Judged.Odds:0.#e0}";

    /// <summary>The rate begins low and may double with each second.</summary>
    private void CheckRate(string name, TimeSpan now)
    {
        var braked = _braked.TryGetValue(name, out var list) ? list : _braked[name] = [];
        if (braked.Count > 0 && now - braked[^1] > TimeSpan.FromSeconds(30))
        {
            braked.Clear();
        }

        braked.Add(now);
        var doubled = Math.Min((now - braked[0]).TotalSeconds + 1, 6);
        var within = braked.Count(at => now - at < TimeSpan.FromSeconds(1));
        if (within > CommonModeBrake.FirstRate * Math.Pow(2, doubled))
        {
            report.Violation(world, now, "rate", $"{within} recycles of {name} within a second, {(now - braked[0]).TotalSeconds:0.0} s after the first");
        }
    }

    /// <summary>
    /// A second is the time in which an outage that has just begun cannot be known: the connect probe had succeeded before, and
    /// the next one is due at the next retransmission.
    /// </summary>
    private void CheckOutage(SimulatedConnection connection, TimeSpan now, string what)
    {
        if (connection.Path.DownFor(now) > TimeSpan.FromSeconds(1))
        {
            report.Violation(world, now, "outage", $"{connection} was {what}, the path being down for {connection.Path.DownFor(now).TotalSeconds:0.000} s");
        }
    }
}
