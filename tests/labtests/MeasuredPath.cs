using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Npgsql;

namespace Sidecar.LabTests;

/// <summary>What <c>measure --json</c> said about a path of a lab.</summary>
internal sealed record Measured(int ExitCode, string Error, JsonElement? Json)
{
    public double Lower => Json!.Value.GetProperty("lower_seconds").GetDouble();

    public double? Upper => Json!.Value.GetProperty("upper_seconds") is { ValueKind: JsonValueKind.Number } n ? n.GetDouble() : null;

    public string Class => Json!.Value.GetProperty("class").GetString()!;

    public double Elapsed => Json!.Value.GetProperty("elapsed_seconds").GetDouble();

    public int Connections => Json!.Value.GetProperty("connections_used").GetInt32();

    public bool Varies => Json!.Value.GetProperty("varies").GetBoolean();

    public bool? KeepaliveRefreshes => Flag("keepalive_refreshes");

    public bool? PayloadRefreshes => Flag("payload_refreshes");

    public bool? ServerFirstPasses => Flag("server_first_passes");

    public string? Hop => Json!.Value.GetProperty("hop").GetString();

    /// <summary>
    /// The interval holds the timeout and is no wider than 5 % or a second. How long that took is printed as a multiple of
    /// the timeout; what it may take is tested in virtual time, as a busy machine would be no fault of the ladder's.
    /// </summary>
    /// <param name="timeout">The timeout, seconds.</param>
    /// <param name="late">How late the one who enforces it may be: a process, other than a kernel, on a busy machine.</param>
    public void ShouldBracket(double timeout, double late = 0)
    {
        ExitCode.ShouldBe(0, Error);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"T = {timeout} s: {Class} [{Lower}, {Upper}] after {Elapsed} s ({Elapsed / timeout:0.00} T), {Connections} connections"));
        Lower.ShouldBeLessThanOrEqualTo(timeout + late, Json.ToString());
        Upper.ShouldNotBeNull(Json.ToString());
        Upper.Value.ShouldBeGreaterThanOrEqualTo(timeout, Json.ToString());
        (Upper.Value - Lower).ShouldBeLessThanOrEqualTo(Math.Max(1, Lower * 0.05) + 0.001, Json.ToString());
        Connections.ShouldBeLessThanOrEqualTo(32);
    }

    private bool? Flag(string name) => Json!.Value.GetProperty(name).ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => null,
    };
}

/// <summary>Runs <c>conn-sidecar measure</c> on the worker host of a lab, as an operator would.</summary>
internal static class MeasuredPath
{
    public const string Password = "not-to-be-seen";

    public static Task<Measured> TcpAsync(TestLab lab, int port, params IEnumerable<string> arguments) =>
        AtAsync(lab, $"{lab.Network.DatabaseAddress4}:{port}", arguments);

    /// <summary>Measures an endpoint as the worker host sees it.</summary>
    public static Task<Measured> AtAsync(TestLab lab, string endpoint, params IEnumerable<string> arguments) => RunAsync(lab, endpoint, arguments);

    public static Task<Measured> PostgreSqlAsync(TestLab lab, int port = Database.Port, params IEnumerable<string> arguments) =>
        RunAsync(lab, $"{lab.Network.DatabaseAddress4}:{port}", ["--protocol", "postgresql", "--dsn-file", DsnFile(lab, "postgres"), .. arguments]);

    public static Task<Measured> PostgreSqlAsync(TestLab lab, string user, params IEnumerable<string> arguments) =>
        RunAsync(lab, $"{lab.Network.DatabaseAddress4}:{Database.Port}", ["--protocol", "postgresql", "--dsn-file", DsnFile(lab, user), .. arguments]);

    /// <summary>Starts it for people, to be interrupted.</summary>
    public static ChildProcess Start(TestLab lab) => ChildProcess.Start(new ChildOptions
    {
        Name = "measure",
        CommandLine = [AgentProcess.Binary, "measure", $"{lab.Network.DatabaseAddress4}:{Database.Port}", "--protocol", "postgresql", "--dsn-file", DsnFile(lab, "postgres")],
        Namespace = lab.Network.Worker.Name,
        Directory = lab.Directory,
    });

    /// <summary>Waits until the server has no session of the measuring: the last one has just said goodbye.</summary>
    public static Task ShouldLeaveNoSessionAsync(TestLab lab) => Wait.UntilAsync("no session is left", async () => await SessionsAsync(lab) == 0, Wait.Seconds(10));

    private static async Task<long> SessionsAsync(TestLab lab)
    {
        await using var connection = await lab.Database.ConnectLocallyAsync();
        await using var command = new NpgsqlCommand("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'conn-sidecar'", connection);
        return (long)(await command.ExecuteScalarAsync())!;
    }

    public static async Task ExecuteAsync(TestLab lab, params IEnumerable<string> statements)
    {
        await using var connection = await lab.Database.ConnectLocallyAsync();
        foreach (var statement in statements)
        {
            await using var command = new NpgsqlCommand(statement, connection);
            await command.ExecuteNonQueryAsync();
        }
    }

    /// <summary>A listener on the database host that accepts, keeps quiet and closes when the client does, or each connection after a time if one is given.</summary>
    public static Socket Listen(TestLab lab, int port, TimeSpan? closeAfter = null)
    {
        var listener = lab.Network.Database.Inside(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        listener.Bind(new IPEndPoint(IPAddress.Any, port));
        listener.Listen(64);
        _ = AcceptAsync();
        return listener;

        async Task AcceptAsync()
        {
            var kept = new List<Socket>();
            try
            {
                while (true)
                {
                    var socket = await listener.AcceptAsync();
                    kept.Add(socket);
                    if (closeAfter is { } time)
                    {
                        _ = CloseAsync(socket, time);
                    }
                    else
                    {
                        _ = FollowAsync(socket);
                    }
                }
            }
            catch (SocketException)
            {
                kept.ForEach(s => s.Dispose());
            }
        }

        static async Task FollowAsync(Socket socket)
        {
            try
            {
                var buffer = new byte[4096];
                while (await socket.ReceiveAsync(buffer) > 0)
                {
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // Reset by the client, or closed by the test.
            }

            socket.Dispose();
        }

        static async Task CloseAsync(Socket socket, TimeSpan time)
        {
            await Task.Delay(time);
            socket.Dispose();
        }
    }

    private static string DsnFile(TestLab lab, string user)
    {
        var path = Path.Combine(lab.Directory, $"measure-{Guid.NewGuid():n}.dsn");
        File.WriteAllText(path, $"host=elsewhere user={user} dbname=postgres password={Password}\n");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return path;
    }

    private static async Task<Measured> RunAsync(TestLab lab, string endpoint, IEnumerable<string> arguments)
    {
        var result = await lab.Network.Worker.TryRunAsync([AgentProcess.Binary, "measure", endpoint, "--json", .. arguments]);
        (result.Output + result.Error).ShouldNotContain(Password);
        return new Measured(result.ExitCode, result.Error, result.Output.StartsWith('{') ? JsonDocument.Parse(result.Output).RootElement : null);
    }
}
