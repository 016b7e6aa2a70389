using System.Text;
using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Haproxy;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Hostile;

/// <summary>A HAProxy that has been taken over.</summary>
public sealed class HaproxyFloodTests
{
    [Fact]
    public void New_names_in_every_answer_leave_nothing_behind()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        var timeline = new Timeline();
        var scan = new HaproxyScan(new HaproxySection("edge", "/x"));
        var sizes = new List<int>();
        for (var answer = 0; answer < 12; answer++)
        {
            var names = Enumerable.Range(answer * 9500, 9500).Select(i => $"b{i:D7}").ToList();
            var status = scan.Describe(HaproxyStats.Parse(Answer(names)).ShouldNotBeNull());
            status.Backends.Count.ShouldBe(HaproxyScan.MostBackends);
            status.Problem.ShouldNotBeNull().ShouldContain("left out");
            status.Version.ShouldBe("2.6.12");
            var snapshot = Samples.Snapshot() with { Haproxies = [status], Time = Samples.Noon.AddSeconds(answer) };
            timeline.Note(snapshot);
            metrics.Publish(snapshot);
            // What the agent's own process uses differs from scrape to scrape.
            var scrape = Encoding.UTF8.GetString(metrics.Aggregator.Scrape(ExpositionFormat.PrometheusText));
            sizes.Add(scrape.Split('\n').Where(line => !line.StartsWith("process_", StringComparison.Ordinal)).Sum(line => line.Length));
        }

        sizes[^1].ShouldBe(sizes[0], "the names are as long as those before");
    }

    [Theory]
    [InlineData("a\u001b[31mred")]
    [InlineData("a\u0007")]
    [InlineData("a\u202egpj")]
    [InlineData("a b")]
    [InlineData("naïve")]
    public void A_name_that_HAProxy_does_not_give_is_left_out_and_told(string name)
    {
        var status = new HaproxyScan(new HaproxySection("edge", "/x")).Describe(HaproxyStats.Parse(Answer([name, "db"])).ShouldNotBeNull());
        status.Backends.Select(backend => backend.Name).ShouldBe(["db"]);
        status.Problem.ShouldNotBeNull().ShouldContain("2 further rows");
    }

    [Fact]
    public void A_name_longer_than_any_is_left_out_and_a_version_that_is_none_is_not_shown()
    {
        var status = new HaproxyScan(new HaproxySection("edge", "/x")).Describe(HaproxyStats.Parse(Answer([new string('a', 5000), "db"]).Replace("2.6.12", "\u001b]0;owned\u0007"))!);
        status.Backends.Select(backend => backend.Name).ShouldBe(["db"]);
        status.Version.ShouldBe("not known");
    }

    [Fact]
    public void No_control_character_reaches_a_label()
    {
        var labels = Encoding.UTF8.GetString(ExpositionWriter.Labels([new("proxy", "a\u001b[31m\r\u0007\u202e\"\\\n")]));
        labels.ShouldAllBe(c => !char.IsControl(c) && c != '\u202e');
        labels.ShouldStartWith("proxy=\"a");
    }

    private static string Answer(IEnumerable<string> backends)
    {
        var answer = new StringBuilder("Name: HAProxy\nVersion: 2.6.12\nMaxconn: 2000\nCurrConns: 40\n\n# pxname,svname,qcur,qmax,scur,smax,slim,stot,chkdown,econ,hrsp_5xx,status,type,\n");
        foreach (var name in backends)
        {
            answer.Append(name).Append(",web1,3,9,10,10,10,400,1,2,5,DOWN,2,\n").Append(name).Append(",BACKEND,4,9,10,20,200,700,1,2,20,UP,1,\n");
        }

        return answer.ToString();
    }
}
