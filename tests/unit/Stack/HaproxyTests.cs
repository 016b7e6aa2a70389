using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Haproxy;
using Xunit;

namespace Sidecar.UnitTests.Stack;

/// <summary>What HAProxy says, and what is made of sockets that hang, lie or talk without end. The real HAProxy is in the lab.</summary>
public sealed class HaproxyTests : IDisposable
{
    private const string Answer = """
        Name: HAProxy
        Version: 2.6.12-1+deb12u4
        Maxconn: 2000
        CurrConns: 40

        # pxname,svname,qcur,qmax,scur,smax,slim,stot,chkdown,econ,hrsp_5xx,status,type,
        www,FRONTEND,,,40,50,2000,900,,,30,OPEN,0,
        mirrors,web1,3,9,10,10,10,400,1,2,5,UP,2,
        mirrors,web2,0,0,0,10,10,300,3,0,1,DOWN,2,
        mirrors,web3,0,0,0,10,,300,0,0,0,MAINT,2,
        mirrors,BACKEND,4,9,10,20,200,700,1,2,20,UP,1,
        db,pg1,0,0,7,8,,30,0,4,,no check,2,
        db,BACKEND,0,0,7,8,200,30,0,4,,UP,1,

        """;

    private readonly TemporaryDirectory _directory = new();
    private readonly List<Socket> _sockets = [];

    public void Dispose()
    {
        _sockets.ForEach(socket => socket.Dispose());
        _directory.Dispose();
    }

    [Fact]
    public void Backends_are_summed_up_from_their_servers()
    {
        var scan = new HaproxyScan(new HaproxySection("edge", "/x"));
        var status = scan.Describe(HaproxyStats.Parse(Answer).ShouldNotBeNull());
        status.ShouldSatisfyAllConditions(s => s.Version.ShouldBe("2.6.12-1+deb12u4"), s => s.Sessions.ShouldBe(40), s => s.SessionLimit.ShouldBe(2000), s => s.Problem.ShouldBeNull());
        status.Backends.Select(b => b.Name).ShouldBe(["mirrors", "db"]);
        status.Backends[0].ShouldSatisfyAllConditions(
            b => (b.ServersUp, b.ServersDown, b.ServersOther).ShouldBe((1, 1, 1)),
            b => b.Down.ShouldBe(["web2"]), b => b.Queue.ShouldBe(7), b => b.Sessions.ShouldBe(10), b => b.SessionLimit.ShouldBe(10),
            b => b.Downs.ShouldBe(0, "what was before the first scan is not of this agent's time"), b => b.OwnErrors.ShouldBe(0));
        status.Backends[1].ShouldSatisfyAllConditions(b => b.ServersUp.ShouldBe(1), b => b.SessionLimit.ShouldBeNull());

        // Two more of HAProxy's own, one that a server answered, one server down again.
        var later = scan.Describe(HaproxyStats.Parse(Answer.Replace(",2,20,UP,1", ",2,23,UP,1").Replace(",2,5,UP", ",2,6,UP").Replace(",300,3,0", ",300,4,0").Replace(",0,4,,UP", ",0,9,,UP"))!);
        later.Backends[0].ShouldSatisfyAllConditions(b => b.Downs.ShouldBe(1), b => b.OwnErrors.ShouldBe(2));
        later.Backends[1].OwnErrors.ShouldBe(5, "without HTTP it is connections that no server took");

        // HAProxy was restarted and counts from zero.
        var restarted = scan.Describe(HaproxyStats.Parse(Answer.Replace(",2,20,UP,1", ",2,1,UP,1").Replace(",2,5,UP", ",2,0,UP").Replace(",0,1,DOWN", ",0,0,DOWN"))!);
        restarted.Backends[0].OwnErrors.ShouldBe(3);
    }

    [Theory]
    [InlineData("")]
    [InlineData("Unknown command.\n")]
    [InlineData("# pxname,svname,type\n")]
    [InlineData("Version: 2.6\nMaxconn: many\nCurrConns: 1\n# pxname\n")]
    [InlineData("Version: 2.6\nMaxconn: 5\nCurrConns: 1\n")]
    public void What_is_no_answer_is_not_read(string answer) => HaproxyStats.Parse(answer).ShouldBeNull();

    [Theory]
    [InlineData("# pxname,svname,type\nwww\nwww,a,2\n,,\nwww,b,9\nwww,c,-1\n", "a")]
    [InlineData("# svname,type,pxname,scur\na,2,www,99999999999999999999\n", "a")]
    public void Rows_that_are_cut_or_spoilt_are_left_out(string rows, string name) =>
        HaproxyStats.Parse("Version: 2.6\nMaxconn: 5\nCurrConns: 1\n" + rows).ShouldNotBeNull().Rows.ShouldHaveSingleItem().Name.ShouldBe(name);

    [Fact]
    public async Task A_socket_that_never_answers_is_given_up_in_time()
    {
        var path = Listen(_ => { });
        var waited = Stopwatch.StartNew();
        (await Should.ThrowAsync<HaproxyException>(() => HaproxySocket.ReadAsync(path, default))).Message.ShouldContain("does not answer within 2 s");
        waited.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(30));
    }

    [Fact]
    public async Task A_socket_that_talks_without_end_is_given_up()
    {
        var path = Listen(socket =>
        {
            try
            {
                while (true)
                {
                    socket.Send(new byte[64 * 1024]);
                }
            }
            catch (SocketException)
            {
                // the reader has had enough
            }
        });
        (await Should.ThrowAsync<HaproxyException>(() => HaproxySocket.ReadAsync(path, default))).Message.ShouldMatch("longer than|does not answer within");
    }

    [Fact]
    public async Task A_socket_of_something_else_is_told_from_HAProxy()
    {
        var path = Listen(socket =>
        {
            socket.Receive(new byte[100]);
            socket.Send("HTTP/1.0 400 Bad request\r\n\r\n"u8);
            socket.Dispose();
        });
        (await Should.ThrowAsync<HaproxyException>(() => HaproxySocket.ReadAsync(path, default))).Message.ShouldContain("does not answer as HAProxy does");
    }

    [Fact]
    public async Task A_socket_that_is_not_there_is_a_problem_of_the_section_and_what_was_seen_before_is_kept()
    {
        var scan = new HaproxyScan(new HaproxySection("edge", _directory.File("none.sock")));
        var before = scan.Describe(HaproxyStats.Parse(Answer)!);
        var status = await scan.ScanAsync(before, default);
        status.Version.ShouldBeNull();
        var path = _directory.File("none.sock");
        status.Problem.ShouldBe($"{path} is not there; HAProxy has to run with the line \"stats socket {path} mode 660 group conn-sidecar level user\"");
        status.Backends.ShouldBeSameAs(before.Backends);
    }

    [Fact]
    public async Task It_asks_only_for_what_a_reader_may_have()
    {
        var asked = new TaskCompletionSource<string>();
        var path = Listen(socket =>
        {
            var buffer = new byte[1000];
            asked.SetResult(Encoding.UTF8.GetString(buffer, 0, socket.Receive(buffer)));
            socket.Send(Encoding.UTF8.GetBytes(Answer));
            socket.Dispose();
        });
        (await HaproxySocket.ReadAsync(path, default)).Rows.Count.ShouldBe(7);
        (await asked.Task).ShouldBe("show info;show stat\n");
    }

    private string Listen(Action<Socket> serve)
    {
        var path = _directory.File("stats.sock");
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _sockets.Add(listener);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        _ = Task.Run(() =>
        {
            var socket = listener.Accept();
            _sockets.Add(socket);
            serve(socket);
        });
        return path;
    }
}
