namespace Sidecar.LabTests;

/// <summary>Loss, jitter and what happens on the way are shown as what they are.</summary>
public sealed class MeasuringNoiseTests
{
    private const int Port = 7000;

    /// <summary>
    /// The router forgets after 8 to 12 s, each idle connection after a time of its own. One ladder in twenty or so meets none of that by
    /// chance: of three side by side one shows it at least, and those that do not agree with one another.
    /// </summary>
    [Fact]
    public async Task Jitter_is_shown_as_jitter()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(8), Workers = 1 });
        using var stop = new CancellationTokenSource();
        var jitter = Task.Run(async () =>
        {
            for (var random = new Random(1); !stop.IsCancellationRequested;)
            {
                await lab.Router.SetIdleTimeoutAsync(Wait.Seconds(random.Next(8, 13)));
                await Task.Delay(50);
            }
        });

        var all = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => MeasuredPath.PostgreSqlAsync(lab)));

        await stop.CancelAsync();
        await jitter;
        foreach (var measured in all)
        {
            measured.ExitCode.ShouldBe(0, measured.Error);
            (measured.Lower / 2).ShouldBeLessThan(8);
            measured.Class.ShouldBe("silent-drop");
        }

        var (varying, steady) = (all.Where(m => m.Varies).ToList(), all.Where(m => !m.Varies).ToList());
        varying.ShouldNotBeEmpty(string.Join('\n', all.Select(m => $"{m.Json}")));
        varying.ShouldAllBe(m => $"{m.Json}".Contains("safe end"));
        steady.ShouldAllBe(one => steady.TrueForAll(other => one.Lower <= other.Upper));
    }

    /// <summary>One in seven packets is lost, each way: no loss of theirs is a word of the server's, nor the router's time.</summary>
    [Fact]
    public async Task With_15_percent_loss_nothing_is_said_that_is_not_so()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(8), Servers = false });
        using var listener = MeasuredPath.Listen(lab, Port);
        await lab.Router.SetLossAsync(15);

        var measured = await MeasuredPath.TcpAsync(lab, Port, "--max", "30s");

        ShouldHoldTheTruth(measured);
        $"{measured.Json}".ShouldNotContain("the server sends something");
    }

    /// <summary>The router forgets everything at once, in the middle of the search.</summary>
    [Theory]
    [InlineData(4)]
    [InlineData(9)]
    public async Task A_flush_is_neither_a_timeout_nor_a_clock_that_counts_data_only(double after)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(8), Servers = false });
        using var listener = MeasuredPath.Listen(lab, Port);
        var measuring = MeasuredPath.TcpAsync(lab, Port, "--max", "30s");
        await Task.Delay(Wait.Seconds(after));
        await lab.Router.ForgetAsync();

        ShouldHoldTheTruth(await measuring);
    }

    /// <summary>T = 8 s, of a router that counts all segments.</summary>
    private static void ShouldHoldTheTruth(Measured measured)
    {
        measured.ExitCode.ShouldBe(0, measured.Error);
        measured.Lower.ShouldBeLessThanOrEqualTo(8, measured.Json.ToString());
        (measured.Upper ?? 8).ShouldBeGreaterThanOrEqualTo(8, measured.Json.ToString());
        measured.Class.ShouldNotBe("payload-only", measured.Json.ToString());
    }
}
