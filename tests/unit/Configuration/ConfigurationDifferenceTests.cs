using System.Text;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Xunit;

namespace Sidecar.UnitTests.Configuration;

public sealed class ConfigurationDifferenceTests
{
    private const string Before = """
        [upstream:orders-db]
        endpoint = 10.0.2.2:5432
        [workers:web]
        unit = uwsgi.service
        """;

    [Fact]
    public void Each_key_that_differs_is_a_line_and_so_is_each_section_that_comes_or_goes() => Between(Before, """
        [agent]
        mode = observe
        [upstream:orders-db]
        endpoint = 10.0.2.2:5432, 10.0.2.3:5432
        protocol = postgresql
        dsn-file = /etc/conn-sidecar/none.dsn
        [upstream:cache]
        endpoint = 10.0.3.2:6379
        """).ShouldBe(
        [
            "[agent] mode: protect -> observe",
            "[upstream:orders-db] endpoint: 10.0.2.2:5432 -> 10.0.2.2:5432, 10.0.2.3:5432",
            "[upstream:orders-db] protocol: tcp -> postgresql",
            "[upstream:orders-db] dsn-file: none -> /etc/conn-sidecar/none.dsn",
            "[upstream:cache] added",
            "[workers:web] removed",
        ], ignoreOrder: true);

    [Fact]
    public void What_is_written_otherwise_and_means_the_same_is_no_difference() =>
        Between(Before, "# a comment\n[workers:web]\nunit=uwsgi.service\ngrace = 5000ms\n[upstream:orders-db]\nendpoint = 10.0.2.2:5432\nkeepalive = yes\n").ShouldBeEmpty();

    [Fact]
    public void The_reason_of_a_refusal_is_one_line_with_the_first_error()
    {
        var refused = Should.Throw<ConfigurationException>(() => Parse("[agent]\nmode = sometimes\nfoo = 1\nlisten = x\n")).ReloadRefused;
        refused.ShouldBe("the last reload was refused, the configuration before it is in force: test.conf:2: [agent] mode: expected observe or protect, got \"sometimes\" (and 2 further errors)");
    }

    private static IReadOnlyList<string> Between(string before, string after) => ConfigurationDifference.Between(Parse(before), Parse(after));

    private static SidecarConfiguration Parse(string text) => ConfigurationLoader.Parse("test.conf", Encoding.UTF8.GetBytes(text));
}
