using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.CoreTests.Judgement;

public sealed class TimeoutAdviceTests
{
    private static readonly ServerTimeouts Right = new()
    {
        KeepalivesIdle = TimeSpan.FromSeconds(175),
        KeepalivesInterval = TimeSpan.FromSeconds(15),
        KeepalivesCount = 8,
        UserTimeout = TimeSpan.FromSeconds(120),
        ConnectionCheckInterval = TimeSpan.FromSeconds(10),
        IdleInTransactionTimeout = TimeSpan.FromMinutes(5),
    };

    private static readonly TimeoutFacts AllRight = new()
    {
        IdleTimeout = TimeSpan.FromSeconds(350),
        DeadAfter = TimeSpan.FromSeconds(120),
        HostKeepaliveTime = TimeSpan.FromSeconds(175),
        HostRetries = 8,
        CountsDataOnly = false,
        SeesSessions = true,
        Server = Right,
    };

    /// <summary>As Linux and PostgreSQL come.</summary>
    private static readonly TimeoutFacts Defaults = AllRight with
    {
        HostKeepaliveTime = TimeSpan.FromSeconds(7200),
        HostRetries = 15,
        Server = new ServerTimeouts
        {
            KeepalivesIdle = TimeSpan.FromSeconds(7200),
            KeepalivesInterval = TimeSpan.FromSeconds(75),
            KeepalivesCount = 9,
            UserTimeout = TimeSpan.Zero,
            ConnectionCheckInterval = TimeSpan.Zero,
            IdleInTransactionTimeout = TimeSpan.Zero,
        },
    };

    [Fact]
    public void Where_everything_is_right_nothing_is_said() => TimeoutAdvice.For(AllRight).ShouldBeEmpty();

    [Fact]
    public void Each_default_that_does_not_fit_the_path_gets_a_line_with_what_is_set_and_what_would_be_right() =>
        TimeoutAdvice.For(Defaults).ShouldBe(
        [
            "this host: net.ipv4.tcp_keepalive_time = 7200 s, the path forgets after 350 s: programs that switch keepalive on without a time of their own are not protected by it; 175 s would be right",
            "this host: net.ipv4.tcp_retries2 = 15: what is sent into a forgotten connection is believed alive for 15.4 min; 9 gives up after 204.6 s",
            "server: tcp_keepalives_idle = 7200 s, the path forgets after 350 s: the server's keepalive comes too late; 175 s would be right",
            "server: tcp_keepalives_interval x tcp_keepalives_count = 75 s x 9: a dead client keeps its locks for 2.2 h; 15 s x 8 would be right",
            "server: tcp_user_timeout = 0: an answer that nobody takes holds its back-end, and its locks, for up to 15.4 min; 120 s would be right",
            "server: client_connection_check_interval = 0: a query whose client has gone runs to its end; 10 s would be right",
            "server: idle_in_transaction_session_timeout = 0: a transaction that was left open keeps its locks for ever; 300 s would be right, or as long as the longest pause that is meant",
        ]);

    [Fact]
    public void Without_a_known_timeout_nothing_is_said_about_the_path() =>
        TimeoutAdvice.For(Defaults with { IdleTimeout = null, Server = null }).ShouldBeEmpty();

    [Fact]
    public void What_is_not_known_is_not_advised_on() =>
        TimeoutAdvice.For(AllRight with { HostKeepaliveTime = null, HostRetries = null, Server = default(ServerTimeouts) }).ShouldBeEmpty();

    [Fact]
    public void Following_the_advice_leaves_nothing_to_say()
    {
        var after = Defaults with
        {
            HostKeepaliveTime = TimeSpan.FromSeconds(175),
            HostRetries = 9,
            Server = Right,
        };

        TimeoutAdvice.For(after).ShouldBeEmpty();
    }

    [Theory]
    [InlineData(15, 924.6)]
    [InlineData(8, 102.2)]
    [InlineData(0, 0.2)]
    public void The_kernel_gives_up_after_the_sum_of_its_timeouts(int retries, double seconds) =>
        TimeoutAdvice.GivesUpAfter(retries).TotalSeconds.ShouldBe(seconds, 0.05);
}
