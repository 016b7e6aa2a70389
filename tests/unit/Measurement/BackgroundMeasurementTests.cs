using System.Collections.Concurrent;
using System.Net;
using Shouldly;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Measurement;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

public sealed class BackgroundMeasurementTests : IAsyncLifetime, IDisposable
{
    private static readonly KeptPathKey Key = new("own", "10.0.1.1", "", "10.0.2.2:7000");
    private readonly TemporaryDirectory _state = new();
    private readonly ListLogger _logger = new();
    private readonly ManualClock _clock = new(Samples.Noon);
    private readonly List<(MeasurementTarget Target, LadderSettings Settings, Action<GapObservation> Learnt, TaskCompletionSource<MeasurementReport> End)> _ladders = [];
    private readonly ConcurrentBag<TimeSpan> _tried = [];
    private readonly SemaphoreSlim _begun = new(0);
    private readonly PathEstimator _estimator = new();
    private readonly BackgroundMeasurement _background;

    public BackgroundMeasurementTests() =>
        _background = new BackgroundMeasurement(_state.Path, new BackgroundSettings(), _logger, _clock, (target, settings, _, learnt, stop) =>
        {
            var end = new TaskCompletionSource<MeasurementReport>(TaskCreationOptions.RunContinuationsAsynchronously);
            stop.Register(() => end.TrySetResult(Report(null) with { Interrupted = true }));
            lock (_ladders)
            {
                _ladders.Add((target, settings, learnt!, end));
            }

            _begun.Release();
            return end.Task;
        },
        (_, gap, _) =>
        {
            _tried.Add(gap);
            return Task.FromResult<GapObservation?>(Seen(gap.TotalSeconds, GapOutcome.Survived));
        });

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync() => await _background.DisposeAsync();

    public void Dispose()
    {
        _state.Dispose();
        _begun.Dispose();
    }

    [Fact]
    public async Task An_unknown_path_is_measured_and_its_evidence_comes_as_it_is_learnt()
    {
        await BeginAsync();
        _background.Running.ShouldBe(Key);

        _ladders[0].Learnt(Seen(5, GapOutcome.Survived));
        var news = await TakeAsync();
        news.Observation!.Value.Gap.ShouldBe(TimeSpan.FromSeconds(5));
        _background.Running.ShouldBe(Key);

        _ladders[0].End.SetResult(Report(TimeSpan.FromSeconds(21)));
        (await TakeAsync()).Report!.Upper.ShouldBe(TimeSpan.FromSeconds(21));
        _background.Running.ShouldBeNull();
        _background.ClassOf(Key).ShouldBe(PathClass.SilentDrop);
    }

    [Fact]
    public async Task One_ladder_runs_at_a_time()
    {
        await BeginAsync();

        Offer();
        Offer(Key with { Destination = "10.0.2.3:7000" });

        _ladders.Count.ShouldBe(1);
    }

    [Fact]
    public async Task A_measured_path_rests_until_its_evidence_contradicts_itself()
    {
        await FinishAsync();
        Learn(Seen(19, GapOutcome.Survived), Seen(20, GapOutcome.Lost));
        _clock.Advance(TimeSpan.FromHours(1));
        Offer();
        _ladders.Count.ShouldBe(1);

        Learn(Seen(9, GapOutcome.Lost));

        await BeginAsync();
        _ladders.Count.ShouldBe(2);
    }

    [Fact]
    public async Task A_path_of_which_little_is_left_is_measured_again()
    {
        await FinishAsync();
        Learn(Seen(5, GapOutcome.Survived), Seen(8.6, GapOutcome.Lost));
        _clock.Advance(TimeSpan.FromMinutes(1));

        await BeginAsync();

        _ladders.Count.ShouldBe(2);
        _ladders[1].Settings.IsGuest.ShouldBeTrue();
        _ladders[1].Settings.Survived.ShouldBe(TimeSpan.FromSeconds(5));
    }

    /// <summary>The router was changed while it ran: gaps were lost, and longer ones survived afterwards.</summary>
    [Fact]
    public async Task A_ladder_that_met_losses_and_found_no_upper_bound_is_followed_by_another()
    {
        await BeginAsync();
        _ladders[^1].End.SetResult(Report(upper: null) with { Varies = true, Class = PathClass.NotKnown });
        await TakeAsync();
        _clock.Advance(TimeSpan.FromMinutes(1));

        await BeginAsync();

        _ladders.Count.ShouldBe(2);
    }

    [Fact]
    public async Task Refusals_double_the_pause_up_to_a_day()
    {
        var pauses = new List<double>();
        await BeginAsync();
        while (pauses.Count < 13)
        {
            _ladders[^1].End.SetException(new MeasurementException("refused"));
            await TakeAsync();
            var pause = TimeSpan.Zero;
            while (_background.Running is null)
            {
                pause += TimeSpan.FromSeconds(30);
                _clock.Advance(TimeSpan.FromSeconds(30));
                Offer();
            }

            await _begun.WaitAsync();
            pauses.Add(pause.TotalMinutes);
        }

        pauses.ShouldBe([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
    }

    [Fact]
    public async Task A_contradiction_that_does_not_end_is_not_measured_in_a_rush()
    {
        await FinishAsync();
        Learn(Seen(19, GapOutcome.Survived), Seen(9, GapOutcome.Lost));
        var ladders = 0;
        for (var minute = 0; minute < 24 * 60; minute++)
        {
            _clock.Advance(TimeSpan.FromMinutes(1));
            Offer();
            if (_background.Running is null)
            {
                continue;
            }

            await _begun.WaitAsync();
            _ladders[^1].End.SetResult(Report(TimeSpan.FromSeconds(21)));
            await TakeAsync();
            ladders++;
        }

        ladders.ShouldBeInRange(3, 60);
    }

    [Fact]
    public async Task Now_and_then_one_connection_idles_longer_than_the_path_is_known_to_remember()
    {
        await FinishAsync();
        Learn(Seen(19, GapOutcome.Survived), Seen(20, GapOutcome.Lost));
        _clock.Advance(TimeSpan.FromSeconds(199));
        Offer();
        _tried.ShouldBeEmpty();

        _clock.Advance(TimeSpan.FromSeconds(1));
        Offer();
        (await TakeAsync()).Observation!.Value.Gap.ShouldBe(TimeSpan.FromSeconds(25));
        _tried.ShouldBe([TimeSpan.FromSeconds(25)]);
        _ladders.Count.ShouldBe(1);

        // It survived: what is known contradicts itself now, and the path is measured anew.
        Learn(Seen(25, GapOutcome.Survived));
        await BeginAsync();
    }

    [Fact]
    public async Task A_ladder_begins_above_what_connections_have_been_seen_to_survive()
    {
        Learn(Seen(100, GapOutcome.Survived));
        await BeginAsync();
        _ladders[0].Settings.Survived.ShouldBe(TimeSpan.FromSeconds(100));
    }

    [Fact]
    public async Task A_path_is_measured_again_after_a_day_to_notice_a_longer_timeout()
    {
        await FinishAsync();
        Learn(Seen(19.5, GapOutcome.Survived), Seen(20, GapOutcome.Lost));
        _clock.Advance(TimeSpan.FromHours(25));

        await BeginAsync();

        _ladders.Count.ShouldBe(2);
    }

    [Fact]
    public async Task Good_evidence_from_before_saves_a_ladder()
    {
        Learn(Seen(19.5, GapOutcome.Survived), Seen(20, GapOutcome.Lost));
        _background.Keep(Key, _estimator.Keep());
        await _background.DisposeAsync();
        await using var next = new BackgroundMeasurement(_state.Path, new BackgroundSettings(), _logger, _clock, (_, _, _, _, _) => throw new InvalidOperationException("not needed"));

        var kept = new PathEstimator(next.Kept(Key)!);
        next.Offer(Path(Key) with { Estimate = kept.Estimate(_clock.GetUtcNow()) });

        kept.Estimate(_clock.GetUtcNow()).Upper.ShouldBe(TimeSpan.FromSeconds(20));
        next.Running.ShouldBeNull();
    }

    [Fact]
    public async Task A_failed_ladder_is_told_and_tried_again_later()
    {
        await BeginAsync();
        _ladders[0].End.SetException(new MeasurementException("no slots"));
        var news = await TakeAsync();
        (news.Report, news.Problem).ShouldBe((null, "no slots"));
        _logger.Lines.ShouldContain(m => m.Text.Contains("no slots"));

        Offer();
        _ladders.Count.ShouldBe(1);
        _clock.Advance(TimeSpan.FromMinutes(2));
        await BeginAsync();
    }

    [Fact]
    public async Task The_end_of_the_agent_ends_the_ladder()
    {
        await BeginAsync();

        await _background.DisposeAsync();

        _ladders[0].End.Task.IsCompleted.ShouldBeTrue();
    }

    public static TheoryData<string> Refusals => ["inbound", "built-in", "no-dsn", "mysql", "mysql-port", "declared"];

    [Theory]
    [MemberData(nameof(Refusals))]
    public void What_may_do_harm_or_needs_no_measuring_gets_no_ladder(string why)
    {
        var path = Path(Key);
        path = why switch
        {
            "inbound" => path with { Upstream = path.Upstream with { Direction = UpstreamDirection.Inbound } },
            "built-in" => path with { Upstream = path.Upstream with { IsBuiltIn = true } },
            "no-dsn" => path with { Upstream = path.Upstream with { Protocol = UpstreamProtocol.PostgreSql } },
            "mysql" => path with { Upstream = path.Upstream with { Protocol = UpstreamProtocol.MySql } },
            "mysql-port" => path with { Endpoint = new IPEndPoint(IPAddress.Parse("10.0.2.2"), 3306) },
            _ => path with { Upstream = path.Upstream with { IdleTimeout = new IdleTimeoutSetting(IdleTimeoutSource.Declared, TimeSpan.FromSeconds(9)) } },
        };

        _background.Offer(path);
        _background.Offer(path);

        _background.Running.ShouldBeNull();
        _logger.Lines.Count.ShouldBe(why == "declared" ? 0 : 1);
    }

    private async Task BeginAsync()
    {
        // A gap may just be being tried.
        for (var offers = 0; offers < 1000; offers++)
        {
            Offer();
            if (await _begun.WaitAsync(TimeSpan.FromMilliseconds(20)))
            {
                return;
            }
        }

        throw new TimeoutException("no ladder was begun");
    }

    private async Task FinishAsync()
    {
        await BeginAsync();
        _ladders[0].End.SetResult(Report(TimeSpan.FromSeconds(20)));
        await TakeAsync();
    }

    private void Offer(KeptPathKey? key = null) => _background.Offer(Path(key ?? Key) with { Estimate = _estimator.Estimate(_clock.GetUtcNow()) });

    private void Learn(params GapObservation[] observations)
    {
        foreach (var observation in observations)
        {
            _estimator.Add(observation);
        }
    }

    private async Task<MeasurementNews> TakeAsync()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(10));
        MeasurementNews news;
        while (!_background.TryTake(out news))
        {
            await Task.Delay(5, limit.Token);
        }

        // The task that ran the ladder ends just after its last message.
        await Task.Delay(5, limit.Token);
        return news;
    }

    private GapObservation Seen(double seconds, GapOutcome outcome) => new(TimeSpan.FromSeconds(seconds), outcome, _clock.GetUtcNow(), EvidenceSource.Ladder);

    private static PathToMeasure Path(KeptPathKey key) => new()
    {
        Key = key,
        Upstream = new UpstreamSection { Name = "orders", Endpoints = [new EndpointPattern("10.0.2.2:7000", null, null, 7000)] },
        Endpoint = new IPEndPoint(IPAddress.Parse("10.0.2.2"), 7000),
        Estimate = IdleTimeoutEstimate.Unknown,
    };

    internal static MeasurementReport Report(TimeSpan? upper) => new()
    {
        Endpoint = "10.0.2.2:7000",
        Lower = TimeSpan.FromSeconds(19.5),
        Upper = upper,
        Class = upper is null ? PathClass.NoneSeen : PathClass.SilentDrop,
        Elapsed = TimeSpan.FromSeconds(30),
        ConnectionsUsed = 17,
        FreshConnects = 2,
        KeepaliveRefreshes = true,
        PayloadRefreshes = null,
        ServerFirstPasses = null,
        Hop = null,
        PeerKeepalive = null,
        Interrupted = false,
        Gaps = [new TriedGap(TimeSpan.FromSeconds(2.5), true), new TriedGap(TimeSpan.FromSeconds(19.5), true), new TriedGap(TimeSpan.FromSeconds(20.3), false)],
        Observations = [],
        Notes = [],
    };
}
