using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;
using Sidecar.CoreTests.Remedies;
using Xunit;

namespace Sidecar.CoreTests.Tracking;

/// <summary>
/// Whether an answer is due where the ages of the last data are equal: the query went out in the tick of the answer before it, or the
/// answer came in the tick of its query.
/// </summary>
public sealed class AnswerAwaitedTests
{
    private readonly Bench _bench = new();

    /// <summary>An agent that has just been started finds a connection whose keepalives have been answered since.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Where_a_keepalive_was_answered_since_it_is_not_known_and_the_connection_rests(bool isQuery)
    {
        var socket = Exchange(age: 20, isQuery);
        Keepalive(socket);
        _bench.Run(1);
        _bench.Connection(socket).IsAnswerUnknown.ShouldBeTrue();
        _bench.Connection(socket).IsAnswerAwaited.ShouldBeFalse();
        _bench.Connection(socket).Judged.Verdict.ShouldBe(Verdict.Healthy);
    }

    [Fact]
    public void A_query_that_was_acknowledged_by_itself_is_awaited_and_stays_so_whatever_keepalives_bring_and_across_a_reload()
    {
        var socket = Exchange(age: 1, isQuery: true);
        socket.Answers = true;
        _bench.Run(1);
        _bench.Connection(socket).Judged.Verdict.ShouldBe(Verdict.Waiting);
        _bench.Run(10);
        Keepalive(socket);
        _bench.Run(1);
        _bench.Reload();
        Keepalive(socket);
        _bench.Run(1);
        _bench.Connection(socket).Judged.Verdict.ShouldBe(Verdict.Waiting);
    }

    [Fact]
    public void An_answer_that_brought_the_acknowledgement_with_it_is_all_there_was()
    {
        var socket = Exchange(age: 20, isQuery: false);
        _bench.Run(1);
        _bench.Connection(socket).IsAnswerUnknown.ShouldBeFalse();
        _bench.Connection(socket).IsAnswerAwaited.ShouldBeFalse();
    }

    [Theory]
    [InlineData("active", Verdict.Waiting)]
    [InlineData("idle", Verdict.Healthy)]
    [InlineData("idle in transaction", Verdict.Healthy)]
    public void Where_it_is_not_known_the_servers_session_decides(string state, Verdict verdict)
    {
        var socket = Exchange(age: 20, isQuery: true);
        Keepalive(socket);
        _bench.Run(1);
        _bench.World.Server("db", TestServer.View(_bench.Now, TestServer.Session(1, state)));
        _bench.Run(1);
        _bench.Connection(socket).IsAnswerUnknown.ShouldBeFalse();
        _bench.Connection(socket).Judged.Verdict.ShouldBe(verdict);
        _bench.World.Server("db", null);
        _bench.Run(1);
        _bench.Connection(socket).Judged.Verdict.ShouldBe(verdict, "it was told, and nothing has moved since");
    }

    [Fact]
    public void A_server_that_was_asked_before_the_data_moved_decides_nothing()
    {
        var socket = _bench.Open(idle: 5);
        _bench.World.Server("db", TestServer.View(_bench.Now, TestServer.Session(1, "active")));
        _bench.Run(1);
        (var at, socket.Answers) = (_bench.Now, true);
        socket.Send(at);
        socket.Receive(at);
        socket.WindowProbe(at + TimeSpan.FromSeconds(2)); // the agent was held up
        _bench.Tick(TimeSpan.FromSeconds(3));
        _bench.Connection(socket).IsAnswerUnknown.ShouldBeTrue();
        _bench.Connection(socket).IsAnswerAwaited.ShouldBeFalse();
    }

    /// <summary>Its probes are unanswered already when the server tells.</summary>
    [Fact]
    public void What_the_server_tells_of_a_silent_connection_is_part_of_its_recording()
    {
        var socket = Exchange(age: 20, isQuery: true);
        Keepalive(socket);
        (socket.Answers, socket.KeepaliveProbes) = (false, 1);
        _bench.Path = null; // connect probes are out
        _bench.Run(3);
        var connection = _bench.Connection(socket);
        connection.IsRecorded.ShouldBeTrue();
        connection.Judged.Reason.ShouldBe(Reason.ProbesOut);
        _bench.World.Server("db", TestServer.View(_bench.Now, TestServer.Session(1, "active")));
        _bench.Tick();
        connection.Judged.Reason.ShouldBe(Reason.AnswerAwaitedProbesOut);
        var recording = _bench.World.Recorder.Freeze(connection);
        (_bench.Path, socket.KeepaliveProbes) = (Probes.Values.ConnectProbeOutcome.Connected, 6);
        _bench.Run(5);
        socket.IsClosed.ShouldBeTrue();
        var replayed = Replay.Run(_bench.Hands.All<IncidentReport>().First().Incident, recording).Steps;
        replayed.ShouldContain(step => step.What == "the server works on an answer");
        var verdicts = replayed.Where(step => step.Recorded is not null).ToList();
        verdicts[^1].Replayed!.Reason.ShouldBe(Reason.AnswerAwaitedProbesOut);
        verdicts.ShouldAllBe(step => step.Recorded!.Reason == step.Replayed!.Reason);
    }

    /// <summary>A socket that nobody has seen yet, with data both ways in one tick of the kernel's clock.</summary>
    /// <param name="age">How long ago, in seconds.</param>
    /// <param name="isQuery">The query came last, and its acknowledgement by itself; else the answer, with it.</param>
    private FakeSocket Exchange(double age, bool isQuery)
    {
        var socket = _bench.Open(age + 10, tick: false);
        var at = _bench.Now - TimeSpan.FromSeconds(age);
        if (isQuery)
        {
            socket.Receive(at);
            socket.Send(at);
            socket.Acknowledge(at + TimeSpan.FromMilliseconds(40));
        }
        else
        {
            socket.Send(at);
            socket.Receive(at);
        }

        return socket;
    }

    private void Keepalive(FakeSocket socket)
    {
        socket.Answers = true;
        socket.WindowProbe(_bench.Now);
    }
}
