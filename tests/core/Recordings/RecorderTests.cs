using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.CoreTests.Remedies;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Recordings;

/// <summary>A recording is bounded whatever goes on and for how long, and connections that are not silent have none.</summary>
public sealed class RecorderTests
{
    /// <summary>Thousands that are closed one after another wait for long with a decision that stays the same.</summary>
    [Fact]
    public void A_decision_that_was_made_long_before_is_kept_though_what_came_next_is_large()
    {
        var bench = new Bench();
        var hung = bench.Open(idle: 1);
        hung.Send(bench.Now);
        bench.Run(0.5);
        var connection = bench.Connection(hung);
        var recorder = new ConnectionRecorder(connection);
        var seen = new RecordedStep { At = bench.Now, Seen = RecordedSocket.Of(connection.Last) };
        recorder.Add(seen);
        recorder.Judged(null);
        var plan = RecordedPlan.Of(PlanKind.Outage, default, default, Decision.Withhold(Remedy.Recycle, Guardrail.PathDown));
        recorder.Planned(plan, bench.Now);
        for (var i = 0; i < 22; i++)
        {
            recorder.Add(new RecordedStep { At = bench.Now, ConnectProbe = new RecordedConnectProbe { Clean = true, Started = bench.Now, Ended = bench.Now } });
            recorder.Add(seen);
            recorder.Judged(RecordedPath.Of(connection.User, connection.User.Evidence(bench.Now, bench.Now)));
            recorder.Planned(plan, bench.Now);
        }

        var recording = recorder.Freeze();
        recording.LeftOut.ShouldBeGreaterThan(0);
        recording.Steps.Single(step => step.Plan is not null).Plan.ShouldBe(plan);
    }

    [Fact]
    public void A_recording_that_begins_with_a_decision_knows_the_verdict_that_it_was_made_on()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        bench.Forget(socket, 1);
        var connection = bench.Connection(socket);
        connection.Judged.Verdict.ShouldBe(Verdict.Suspect);
        TrackedConnection.Restore(connection.Keep(), connection.User).Judged.ShouldBe(connection.Judged);
    }

    [Fact]
    public void Connections_that_are_used_or_at_rest_are_not_recorded()
    {
        var bench = new Bench();
        var (used, _) = (bench.Open(idle: 1), bench.Open(idle: 1));
        for (var i = 0; i < 50; i++)
        {
            used.Send(bench.Now);
            bench.Tick(); // in flight, with no timeout
            used.Receive(bench.Now);
            bench.Tick();
            bench.World.Recorder.Count.ShouldBe(0);
        }
    }

    [Fact]
    public void A_recording_ends_with_the_silence()
    {
        var bench = new Bench { Path = null };
        var socket = bench.Open(idle: 1);
        bench.Forget(socket, 2);
        bench.World.Recorder.Count.ShouldBe(1);
        socket.Receive(bench.Now);
        bench.Tick();
        bench.World.Recorder.Count.ShouldBe(0);
    }

    [Fact]
    public void A_recording_goes_with_its_connection()
    {
        var bench = new Bench { Path = null };
        var socket = bench.Open(idle: 1);
        bench.Forget(socket, 2);
        socket.IsClosed = true;
        bench.Run(1);
        bench.World.Recorder.Count.ShouldBe(0);
    }

    [Fact]
    public void Steps_that_bring_no_news_are_one()
    {
        // Nobody holds it, so no window probe goes out; and no connect probe ends.
        var bench = new Bench { Path = null };
        var socket = bench.Open(idle: 1);
        bench.World.Owners.Forget(socket.Inode);
        bench.Forget(socket, 5); // 50 ticks; timeouts at 0.2, 0.6, 1.4 and 3 s
        var recording = bench.World.Recorder.Freeze(bench.Connection(socket));
        recording.Steps.Count.ShouldBeInRange(4, 14);
        (recording.Steps[^1].At - recording.Steps[0].At).ShouldBeGreaterThan(TimeSpan.FromSeconds(4), "the first and the last stay");
    }

    [Fact]
    public void A_silence_of_ten_minutes_has_a_recording_that_is_bounded_and_still_replays()
    {
        var bench = new Bench { IsLate = true };
        var socket = bench.Open();
        bench.Forget(socket, 600);
        var recording = bench.World.Recorder.Freeze(bench.Connection(socket));
        recording.Steps.Count.ShouldBeLessThanOrEqualTo(ConnectionRecorder.MostSteps);
        recording.LeftOut.ShouldBeGreaterThan(100);
        bench.IsLate = false;
        bench.Run(1);
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
        var incident = bench.Hands.All<IncidentReport>().Last(report => report.Stage == IncidentStage.Begun).Incident;
        incident.Recording.ShouldNotBeNull().LeftOut.ShouldBeGreaterThan(100);
        Replay.Run(incident, incident.Recording).Difference.ShouldBeNull();
    }

    [Fact]
    public void Beyond_so_many_a_connection_has_a_recording_of_its_last_step_which_replays()
    {
        var bench = new Bench();
        var sockets = Enumerable.Range(0, Recorder.MostRecorded + 20).Select(_ => bench.Open(tick: false)).ToList();
        bench.Tick();
        sockets.ForEach(socket => socket.Send(bench.Now));
        bench.Run(2);
        bench.World.Recorder.Count.ShouldBe(Recorder.MostRecorded);
        bench.Run(40);
        var incidents = bench.Hands.All<IncidentReport>().Where(report => report.Incident.Remedy == "recycle").Select(report => report.Incident).ToList();
        incidents.ShouldContain(incident => incident.Recording!.Steps.Count <= 2);
        incidents.ShouldAllBe(incident => Replay.Run(incident, incident.Recording!).Difference == null);
    }

    [Fact]
    public void Where_nothing_is_kept_of_a_path_any_more_the_decision_is_replayed_on_the_verdict_as_it_was()
    {
        var bench = new Bench();
        bench.Hands.Worker = new WorkerState(true, 7);
        bench.Hands.Blocked = BlockedOn.Other;
        var socket = bench.Open();
        var connection = bench.Connection(socket);
        bench.Forget(socket, 2);
        bench.World.Recorder.Ticked(bench.Now, bench.Now, bench.Now + TimeSpan.FromSeconds(70)); // closed long ago, and followed still
        bench.World.Recorder.Count.ShouldBe(0);
        bench.Run(5);
        var incident = bench.Hands.All<IncidentReport>().Last(report => report.Incident.Remedy == "terminate").Incident;
        incident.Recording!.Steps.ShouldAllBe(step => step.Path == null);
        var result = Replay.Run(incident, incident.Recording);
        result.Difference.ShouldBeNull();
        result.Decision!.Value.WithheldBy.ShouldBe(Guardrail.NotBlocked);
        connection.IsGone.ShouldBeTrue();
    }

    [Fact]
    public void Of_a_reloaded_agent_the_recording_goes_on()
    {
        var bench = new Bench { Path = null };
        var socket = bench.Open(idle: 1);
        bench.Forget(socket, 2);
        var later = new Bench();
        later.World.TakeOver(bench.World);
        later.World.Recorder.Count.ShouldBe(1);
        later.World.Recorder.Freeze(later.Connection(socket)).Steps.Count.ShouldBeGreaterThan(2);
    }

    [Theory]
    [InlineData(2, 0, 0.0, false)]
    [InlineData(1, -1, 0.0, false)]
    [InlineData(1, 0, double.NaN, false)]
    [InlineData(1, 0, double.PositiveInfinity, false)]
    [InlineData(1, 0, -1.0, false)]
    [InlineData(1, 0, 5.0, true)]
    public void A_recording_with_numbers_that_cannot_be_is_refused(int version, int at, double odds, bool isSound)
    {
        var incident = Sound();
        var steps = incident.Recording!.Steps.ToList();
        steps[0] = steps[0] with { At = at < 0 ? TimeSpan.FromSeconds(at) : steps[0].At, Judged = new RecordedJudgement { Odds = odds } };
        (RecordingCheck.Of(incident.Recording with { Version = version, Steps = steps }) is null).ShouldBe(isSound);
    }

    [Fact]
    public void A_recording_with_names_or_holes_that_are_none_is_refused()
    {
        var recording = Sound().Recording!;
        RecordingCheck.Of(recording).ShouldBeNull();
        RecordingCheck.Of(recording with { Steps = [] }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Steps = [null!] }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Steps = [.. Enumerable.Repeat(recording.Steps[0], 1000)] }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Start = recording.Start with { Last = new RecordedSocket { State = (TcpState)99 } } }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Start = recording.Start with { LastSeen = TimeSpan.MaxValue } }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Start = recording.Start with { LastHeard = TimeSpan.MinValue } }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Start = recording.Start with { Stall = new RecordedSilence { Confirmed = -1 } } }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Steps = [new RecordedStep { Judged = new RecordedJudgement { Verdict = (Verdict)77 } }] }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Steps = [new RecordedStep { Path = new RecordedPath { FailureRate = 2 } }] }).ShouldNotBeNull();
        RecordingCheck.Of(recording with { Steps = [new RecordedStep { Plan = new RecordedPlan { WithheldBy = (Guardrail)1000 } }] }).ShouldNotBeNull();
    }

    private static Incident Sound()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        return bench.Hands.All<IncidentReport>().First().Incident;
    }
}
