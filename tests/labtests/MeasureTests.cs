namespace Sidecar.LabTests;

/// <summary>
/// Paths of every kind, all measured side by side: most of the time is waiting. Each test looks at one of them.
/// </summary>
public sealed class MeasuredPaths : IAsyncLifetime
{
    private readonly List<Task> _all = [];

    internal Task<Measured> Silent7 { get; private set; } = null!;

    internal Task<Measured> SilentBehindNat13 { get; private set; } = null!;

    internal Task<Measured> Silent20 { get; private set; } = null!;

    internal Task<Measured> Silent45 { get; private set; } = null!;

    internal Task<Measured> Silent60 { get; private set; } = null!;

    internal Task<Measured> SilentTcp13 { get; private set; } = null!;

    internal Task<Measured> Reset13 { get; private set; } = null!;

    internal Task<Measured> None { get; private set; } = null!;

    internal Task<Measured> ServerCloses9 { get; private set; } = null!;

    internal Task<Measured> TcpServerCloses9 { get; private set; } = null!;

    internal Task<Measured> Haproxy11 { get; private set; } = null!;

    public Task InitializeAsync()
    {
        Silent7 = Keep(Postgres(new LabOptions { IdleTimeout = Wait.Seconds(7) }));
        SilentBehindNat13 = Keep(Postgres(new LabOptions { IdleTimeout = Wait.Seconds(13), Masquerade = true }));
        Silent20 = Keep(Postgres(new LabOptions { IdleTimeout = Wait.Seconds(20) }));
        Silent45 = Keep(With(new LabOptions { IdleTimeout = Wait.Seconds(45), Workers = 1 }, async lab =>
        {
            var measured = await MeasuredPath.PostgreSqlAsync(lab);
            await MeasuredPath.ShouldLeaveNoSessionAsync(lab);
            return measured;
        }));
        Silent60 = Keep(Postgres(new LabOptions { IdleTimeout = Wait.Seconds(60) }));
        SilentTcp13 = Keep(Tcp(new LabOptions { IdleTimeout = Wait.Seconds(13), Servers = false }, null));
        Reset13 = Keep(Postgres(new LabOptions { IdleTimeout = Wait.Seconds(13), Router = RouterBehaviour.Reset }));
        None = Keep(Postgres(new LabOptions { Router = RouterBehaviour.Forward }, "--max", "20s"));
        ServerCloses9 = Keep(With(new LabOptions { Router = RouterBehaviour.Forward, Workers = 1 }, async lab =>
        {
            await MeasuredPath.ExecuteAsync(lab, "ALTER SYSTEM SET idle_session_timeout = '9s'", "SELECT pg_reload_conf()");
            return await MeasuredPath.PostgreSqlAsync(lab);
        }));
        TcpServerCloses9 = Keep(Tcp(new LabOptions { Router = RouterBehaviour.Forward, Servers = false }, Wait.Seconds(9)));
        Haproxy11 = Keep(With(new LabOptions { Router = RouterBehaviour.Forward, Workers = 1 }, async lab =>
        {
            using var haproxy = Haproxy(lab, 11);
            await Wait.UntilAsync("haproxy listens", async () => (await lab.Network.Database.TryRunAsync(["ss", "-ltnH", "sport = :6432"])).Output.Length > 0, Wait.Seconds(10));
            return await MeasuredPath.PostgreSqlAsync(lab, 6432);
        }));
        return Task.CompletedTask;
    }

    public async Task DisposeAsync()
    {
        foreach (var task in _all)
        {
            await task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private static ChildProcess Haproxy(TestLab lab, int seconds)
    {
        var configuration = Path.Combine(lab.Directory, "haproxy.cfg");
        File.WriteAllText(configuration, $"""
            defaults
                mode tcp
                timeout connect 5s
                timeout client {seconds}s
                timeout server {seconds}s
            listen postgresql
                bind :6432
                server one 127.0.0.1:{Database.Port}

            """);
        return ChildProcess.Start(new ChildOptions
        {
            Name = "haproxy",
            CommandLine = ["/usr/sbin/haproxy", "-db", "-f", configuration],
            Namespace = lab.Network.Database.Name,
            Directory = lab.Directory,
        });
    }

    private static Task<Measured> Postgres(LabOptions options, params string[] arguments) =>
        With(options with { Workers = 1 }, lab => MeasuredPath.PostgreSqlAsync(lab, Database.Port, arguments));

    private static Task<Measured> Tcp(LabOptions options, TimeSpan? closeAfter) => With(options, async lab =>
    {
        using var listener = MeasuredPath.Listen(lab, 7000, closeAfter);
        return await MeasuredPath.TcpAsync(lab, 7000);
    });

    private static async Task<T> With<T>(LabOptions options, Func<TestLab, Task<T>> measure)
    {
        await Task.Yield();
        await using var lab = await TestLab.StartAsync(options);
        return await measure(lab);
    }

    private Task<T> Keep<T>(Task<T> task)
    {
        _all.Add(task);
        return task;
    }
}

public sealed class MeasureTests(MeasuredPaths paths) : IClassFixture<MeasuredPaths>
{
    [Fact]
    public async Task A_router_that_forgets_after_7_s_is_measured()
    {
        var measured = await paths.Silent7;

        measured.ShouldBracket(7);
        measured.Class.ShouldBe("silent-drop");
    }

    [Fact]
    public async Task A_router_that_forgets_after_20_s_is_measured_in_every_respect()
    {
        var measured = await paths.Silent20;

        measured.ShouldBracket(20);
        measured.Class.ShouldBe("silent-drop");
        measured.KeepaliveRefreshes.ShouldBe(true);
        measured.PayloadRefreshes.ShouldBe(true);
        measured.ServerFirstPasses.ShouldBe(false);
    }

    [Fact]
    public async Task A_router_that_forgets_after_45_s_is_measured_and_no_session_is_left_on_the_server()
    {
        var measured = await paths.Silent45;

        measured.ShouldBracket(45);
        measured.Class.ShouldBe("silent-drop");
    }

    [Fact]
    public async Task A_common_timeout_is_measured_by_the_pair_of_gaps_around_it()
    {
        var measured = await paths.Silent60;

        measured.ShouldBracket(60);
        measured.Class.ShouldBe("silent-drop");
        measured.Connections.ShouldBeLessThanOrEqualTo(20);
    }

    [Fact]
    public async Task A_router_with_source_NAT_is_measured()
    {
        var measured = await paths.SilentBehindNat13;

        measured.ShouldBracket(13);
        measured.Class.ShouldBe("silent-drop");
    }

    [Fact]
    public async Task A_path_to_an_unknown_server_is_measured_without_application_data()
    {
        var measured = await paths.SilentTcp13;

        measured.ShouldBracket(13);
        measured.Class.ShouldBe("silent-drop");
        measured.KeepaliveRefreshes.ShouldBe(true);
        measured.PayloadRefreshes.ShouldBeNull();
    }

    [Fact]
    public async Task A_router_that_resets_is_told_from_a_silent_one()
    {
        var measured = await paths.Reset13;

        measured.ShouldBracket(13);
        measured.Class.ShouldBe("reset");
        measured.KeepaliveRefreshes.ShouldBe(true);
    }

    [Fact]
    public async Task A_path_that_forgets_nothing_is_left_at_the_longest_gap()
    {
        var measured = await paths.None;

        measured.ExitCode.ShouldBe(0, measured.Error);
        measured.Class.ShouldBe("none-seen");
        measured.Upper.ShouldBeNull();
        measured.Lower.ShouldBeGreaterThanOrEqualTo(20);
    }

    [Fact]
    public async Task A_server_that_ends_idle_sessions_itself_is_told_from_the_path()
    {
        var measured = await paths.ServerCloses9;

        measured.ShouldBracket(9, late: 0.5);
        measured.Class.ShouldBe("peer-closes");
        measured.KeepaliveRefreshes.ShouldBe(false);
    }

    [Fact]
    public async Task A_plain_server_that_closes_first_is_told_from_the_path()
    {
        var measured = await paths.TcpServerCloses9;

        measured.ShouldBracket(9, late: 1.5); // a timer of the test's own process
        measured.Class.ShouldBe("peer-closes");
        measured.KeepaliveRefreshes.ShouldBe(false);
    }

    [Fact]
    public async Task A_balancer_that_counts_payload_only_is_found_out()
    {
        var measured = await paths.Haproxy11;

        measured.ShouldBracket(11, late: 0.5);
        measured.Class.ShouldBe("payload-only");
        measured.KeepaliveRefreshes.ShouldBe(false);
        measured.PayloadRefreshes.ShouldBe(true);
    }
}

/// <summary>What the ladder does to the server it is pointed at.</summary>
public sealed class MeasureGuardTests
{
    [Fact]
    public async Task A_server_at_its_connection_limit_gets_no_ladder()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        await MeasuredPath.ExecuteAsync(lab, "CREATE ROLE agent LOGIN CONNECTION LIMIT 0", "CREATE ROLE few LOGIN CONNECTION LIMIT 14");

        var full = await MeasuredPath.PostgreSqlAsync(lab, "agent");
        full.ExitCode.ShouldBe(1);
        full.Error.ShouldContain("connection limit");

        // A fifth of 14 slots is fewer than a ladder needs; half of them are enough.
        var few = await MeasuredPath.PostgreSqlAsync(lab, "few");
        few.ExitCode.ShouldBe(1);
        few.Error.ShouldContain("the role's connection limit");
        await MeasuredPath.ShouldLeaveNoSessionAsync(lab);
        var half = await MeasuredPath.PostgreSqlAsync(lab, "few", "--share", "50%", "--max", "4s");
        half.Connections.ShouldBeLessThanOrEqualTo(7);
        half.Class.ShouldBe("none-seen");
        await MeasuredPath.ShouldLeaveNoSessionAsync(lab);
    }

    [Fact]
    public async Task Interrupted_it_tells_what_it_learnt_and_leaves_nothing_behind()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 1 });
        using var measure = MeasuredPath.Start(lab);
        await Wait.UntilAsync("a gap is survived", () => measure.Output.Contains("survives", StringComparison.Ordinal), Wait.Seconds(60));

        measure.Send(Signal.Interrupt);

        (await measure.WaitForExitAsync(Wait.Seconds(15))).ShouldBe(0);
        measure.Output.ShouldContain("ended before it was finished");
        measure.Output.ShouldContain("forgets nothing within");
        await MeasuredPath.ShouldLeaveNoSessionAsync(lab);
    }

    [Fact]
    public async Task Without_a_server_it_says_so()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Servers = false });

        var measured = await MeasuredPath.TcpAsync(lab, 7001);

        measured.ExitCode.ShouldBe(1);
        measured.Error.ShouldContain("cannot connect");
    }
}
