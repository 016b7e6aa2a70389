using System.Net;
using System.Net.Sockets;
using System.Text;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Measurement;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

/// <summary>Each end of a slow response is told from the others, on real connections.</summary>
public sealed class SilentResponseTests
{
    private static readonly TimeSpan Silence = TimeSpan.FromMilliseconds(400);

    /// <summary>The request as the server got it.</summary>
    private string Asked { get; set; } = "";

    [Fact]
    public async Task A_whole_answer_after_a_silence_is_an_answer()
    {
        var report = await AskAsync(async socket =>
        {
            await Task.Delay(Silence);
            await SendAsync(socket, "HTTP/1.1 200 OK\r\nServer: slow/1\r\nContent-Length: 2\r\n\r\nok"); // and it stays open
        });
        (report.EndName, report.Status, report.Server).ShouldBe(("answer", 200, "slow/1"));
        report.Silent.ShouldBeGreaterThanOrEqualTo(Silence - TimeSpan.FromMilliseconds(20));
    }

    [Fact]
    public async Task An_answer_in_pieces_without_a_length_ends_with_the_connection()
    {
        var report = await AskAsync(async socket =>
        {
            foreach (var piece in "HTTP/1.1 20|0 OK\r\n|\r|\nbody".Split('|'))
            {
                await SendAsync(socket, piece);
                await Task.Delay(20);
            }

            socket.Close();
        });
        (report.EndName, report.Status).ShouldBe(("answer", 200));
    }

    [Theory]
    [InlineData("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n", "status", 504)]
    [InlineData("HTTP/1.0 502 Bad Gateway\r\n\r\n", "status", 502)]
    [InlineData("", "fin", null)]
    [InlineData("HTTP/1.1 200 OK\r\n", "fin", null)]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "fin", 200)]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "fin", 200)]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "answer", 200)]
    [InlineData("nonsense", "fin", null)]
    public async Task What_ends_it_is_told(string sent, string endedBy, int? status)
    {
        var report = await AskAsync(async socket =>
        {
            await Task.Delay(Silence);
            await SendAsync(socket, sent);
            socket.Close();
        });
        (report.EndName, report.Status).ShouldBe((endedBy, status));
        report.Silent.ShouldBeGreaterThanOrEqualTo(Silence - TimeSpan.FromMilliseconds(20));
    }

    [Fact]
    public async Task A_reset_is_told_from_a_close()
    {
        var report = await AskAsync(async socket =>
        {
            await Task.Delay(Silence);
            socket.Close(0);
        });
        report.EndName.ShouldBe("reset");
        report.Silent.ShouldBeGreaterThanOrEqualTo(Silence - TimeSpan.FromMilliseconds(20));
    }

    [Fact]
    public async Task A_connection_that_lives_at_the_end_still_waits()
    {
        var report = await AskAsync(_ => Task.CompletedTask, max: TimeSpan.FromMilliseconds(500));
        (report.EndName, report.Interrupted).ShouldBe(("waiting", false));
    }

    [Fact]
    public async Task Interrupted_it_tells_what_it_saw()
    {
        using var stop = new CancellationTokenSource(Silence);
        var report = await AskAsync(_ => Task.CompletedTask, stop: stop.Token);
        (report.EndName, report.Interrupted).ShouldBe(("waiting", true));
    }

    [Fact]
    public async Task Without_a_server_it_says_so()
    {
        using var unused = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        unused.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var url = new Uri($"http://{unused.LocalEndPoint}/");
        (await Should.ThrowAsync<MeasurementException>(() => SilentResponse.RunAsync(url, TimeSpan.FromSeconds(3), null, CancellationToken.None))).Message.ShouldContain("cannot connect");
    }

    [Fact]
    public async Task A_query_is_sent_and_not_shown()
    {
        var report = await AskAsync(socket => SendAsync(socket, "HTTP/1.1 200 OK\r\nServer: a\u001b[2Jb\r\nContent-Length: 0\r\n\r\n"));
        Asked.ShouldStartWith("GET /slow?token=s3cr3t HTTP/1.1\r\nHost: 127.0.0.1:");
        using var output = new StringWriter();
        MeasureHttp.Write(output, report);
        output.ToString().ShouldContain("/slow at 127.0.0.1:");
        output.ToString().ShouldNotContain("s3cr3t");
        report.Server.ShouldBe("a\\x1b[2Jb");
    }

    [Theory]
    [InlineData("ftp://host/")]
    [InlineData("/slow")]
    [InlineData("http://user:password@host/")]
    [InlineData("http:///x")]
    public void What_is_no_URL_to_ask_for_is_refused(string url) => Should.Throw<MeasurementException>(() => MeasureHttp.Parse(url)).Message.ShouldNotContain("password@");

    private async Task<SilentResponseReport> AskAsync(Func<Socket, Task> serve, TimeSpan? max = null, CancellationToken stop = default)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        var url = new Uri($"http://{listener.LocalEndPoint}/slow?token=s3cr3t");
        var asking = SilentResponse.RunAsync(url, max ?? TimeSpan.FromSeconds(30), null, stop);
        using var socket = await listener.AcceptAsync(CancellationToken.None);

        // A close with the request unread would be a RST.
        var request = new byte[4096];
        var length = await socket.ReceiveAsync(request);
        Asked = Encoding.ASCII.GetString(request, 0, length);
        await serve(socket);
        return await asking;
    }

    private static async Task SendAsync(Socket socket, string text)
    {
        if (text.Length > 0)
        {
            await socket.SendAsync(Encoding.Latin1.GetBytes(text));
        }
    }
}
