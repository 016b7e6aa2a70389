using System.Text;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>Configuration files: they load, or all that is wrong with them is told with its line; what loads can be written and read again.</summary>
internal sealed class ConfigurationTarget : FuzzTarget
{
    private static readonly string[] Values =
    [
        "on", "off", "1s", "3/h", "10.0.0.1:5432", "[fd00::/64]:1", "db:1", "none", "measure", "/x", "w", "x.service", "observe", "", "[", "/", ":", ",", "0.0.0.0/0:1",
        "9999999999d", "9/9999999999999h", "tcp", "postgresql", "1e9s", "-1s", "0", "999999999999999999999", "::", "[::]:0", "a:65536", "xn--:1", "\u0000", "\u202e", "1s1s1s", "10.0.2.2:5432, db:1",
    ];

    private static readonly string[] Words =
    [
        .. ConfigurationKeys.Agent.Concat(ConfigurationKeys.Upstream).Concat(ConfigurationKeys.Workers).SelectMany(key => Values.Take(8).Select(value => $"\n{key} = {value}\n")),
        "\n[agent]\n", "\n[upstream:b]\n", "\n[workers:w]\n", "[", "]", "=", "#", "\r", "\n", "\n[upstream:]\n", "\ufeff",
    ];

    internal override void Try(Dice dice)
    {
        var text = new StringBuilder();
        for (var sections = dice.Choose(0, 4); sections > 0; sections--)
        {
            var (head, keys) = dice.Choose(0, 2) switch
            {
                0 => ("agent", ConfigurationKeys.Agent),
                1 => ($"upstream:{dice.Pick("a", "b", "ä", "a b")}", ConfigurationKeys.Upstream),
                _ => ($"workers:{dice.Pick("w", "x", "")}", ConfigurationKeys.Workers),
            };
            text.Append('[').Append(head).Append("]\n");
            for (var lines = dice.Choose(0, 6); lines > 0; lines--)
            {
                text.Append(keys[dice.Choose(0, keys.Count - 1)]).Append(" = ").Append(dice.Pick<string>(Values)).Append('\n');
            }
        }

        var content = Encoding.UTF8.GetBytes(text.ToString());
        if (dice.Chance(0.7))
        {
            content = dice.Damage(content, Words);
        }

        SidecarConfiguration configuration;
        try
        {
            configuration = ConfigurationLoader.Parse("fuzz.conf", content);
        }
        catch (ConfigurationException e)
        {
            Hold(e.Errors.Count > 0 && e.Errors.All(error => error.Line >= 1), "an error without a line");
            Hold(e.Errors.All(error => !error.ToString().Any(char.IsControl)), "an error with control characters");
            return;
        }

        var written = ConfigurationText.Write(configuration);
        var again = ConfigurationLoader.Parse("fuzz.conf", Encoding.UTF8.GetBytes(written));
        again = again with { Upstreams = [.. again.Upstreams.Select((upstream, i) => upstream with { IsBuiltIn = configuration.Upstreams[i].IsBuiltIn })] };
        Hold(ConfigurationText.Write(again) == written, "what was loaded is read back to something else");
    }
}
