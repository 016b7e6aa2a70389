using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>The network drops large segments: told once for each connection, and nothing is done, since closing would not help.</summary>
public sealed class BlackHoleTests
{
    private readonly Bench _bench = new();

    [Fact]
    public void Data_that_does_not_get_through_while_probes_are_answered_is_told_once_and_left_alone()
    {
        var socket = _bench.Open(idle: 1);
        (socket.Answers, socket.IsTooLarge) = (true, true);
        _bench.Forget(socket, 60);
        var told = Told().ShouldHaveSingleItem();
        (told.Cause, told.Remedy, told.Outcome).ShouldBe(("black-hole", "none", "withheld"));
        told.Evidence.ContainsKey("snd_mss").ShouldBeTrue();
        _bench.Hands.All<Recycle>().ShouldBeEmpty();
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
    }

    [Fact]
    public void So_is_out_of_order_data_that_never_closes_up()
    {
        var socket = _bench.Open(idle: 1);
        socket.Answers = true;
        socket.Send(_bench.Now);
        socket.Acknowledge(_bench.Now);
        _bench.Tick();
        socket.OutOfOrder = 3;
        _bench.Run(2.5);
        _bench.Connection(socket).Judged.Verdict.ShouldBe(Verdict.Waiting, "the segment before may be repeated yet");
        _bench.Run(30);
        _bench.Connection(socket).Judged.Reason.ShouldBe(Reason.LargeAnswersLost);
        Told().Single().Cause.ShouldBe("black-hole");
        _bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void Out_of_order_data_that_closed_up_and_comes_again_is_told_a_second_time()
    {
        var socket = _bench.Open(idle: 1);
        socket.Answers = true;
        for (uint time = 1; time <= 2; time++)
        {
            socket.OutOfOrder += 3; // what the server sends by itself, with nothing asked
            _bench.Run(3.5);
            Told().Count.ShouldBe((int)time);
            socket.Receive(_bench.Now);
            _bench.Run(1);
            _bench.Connection(socket).Judged.Verdict.ShouldBe(Verdict.Healthy);
        }
    }

    [Fact]
    public void Each_connection_is_told_of_and_one_that_went_on_and_hangs_again_a_second_time()
    {
        var (first, second) = (_bench.Open(idle: 1), _bench.Open(idle: 1));
        (first.Answers, second.Answers) = (true, true);
        (first.IsTooLarge, second.IsTooLarge) = (true, true);
        first.Send(_bench.Now);
        _bench.Forget(second, 20);
        Told().Count.ShouldBe(2);
        first.Receive(_bench.Now);
        _bench.Run(1);
        _bench.Forget(first, 20);
        Told().Count.ShouldBe(3);
        Told()[2].Evidence["cookie"].ShouldBe(first.Cookie.ToString());
    }

    [Fact]
    public void One_that_is_closed_is_no_longer_followed()
    {
        var socket = _bench.Open(idle: 1);
        (socket.Answers, socket.IsTooLarge) = (true, true);
        _bench.Forget(socket, 20);
        socket.IsClosed = true;
        _bench.Run(2);
        _bench.World.Connections.All.ShouldBeEmpty();
        Told().Count.ShouldBe(1);
        _bench.Engine.IsFollowing.ShouldBeFalse();
    }

    private List<Incident> Told() => [.. _bench.Hands.All<IncidentReport>().Select(report => report.Incident)];
}
