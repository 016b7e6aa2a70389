using Shouldly;
using Sidecar.Agent.Core.Tracking;
using Xunit;

namespace Sidecar.CoreTests.Tracking;

/// <summary>Which of the transmissions that brought no answer are known to have been sent while the path was up.</summary>
public sealed class SilenceTests
{
    private readonly Silence _silence = new(At(0), At(100), 0);

    [Fact]
    public void What_was_sent_between_two_connect_probes_that_succeeded_is_confirmed()
    {
        Connects(1);
        _silence.Probed(At(2));
        Connects(3);
        _silence.Confirmed.ShouldBe(1);
    }

    [Fact]
    public void A_connect_probe_says_nothing_of_what_was_sent_just_before_it()
    {
        Connects(1);
        _silence.Probed(At(2));
        Connects(2.04);
        _silence.Confirmed.ShouldBe(0);
    }

    /// <summary>At scans that are seconds apart a window probe and a connect probe go out in the same tick each time.</summary>
    [Fact]
    public void A_connect_probe_that_follows_each_transmission_at_once_confirms_those_before()
    {
        for (var i = 1; i <= 5; i++)
        {
            _silence.Probed(At(i * 2));
            Connects(i * 2);
        }

        _silence.Confirmed.ShouldBe(3); // the first came before the path was known to be up, the last is too young
    }

    [Fact]
    public void A_connect_probe_that_fails_takes_everything_back()
    {
        Connects(1);
        _silence.Probed(At(2));
        Connects(3);
        _silence.Probed(At(4));
        _silence.NoteConnectProbe(cleanSuccess: false, At(5), At(6));
        Connects(7);
        _silence.Confirmed.ShouldBe(0);
        _silence.Clean.ShouldBe(1);
    }

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(seconds);

    private void Connects(double at) => _silence.NoteConnectProbe(cleanSuccess: true, At(at), At(at + 0.001));
}
