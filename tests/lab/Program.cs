using Sidecar.Lab;
using Sidecar.Lab.Demo;

static int Number(string text) => int.Parse(text, System.Globalization.CultureInfo.InvariantCulture);

try
{
    return args switch
    {
        ["demo"] => await Demonstration.RunAsync(),
        ["up"] => await LabByHand.RunAsync(),
        ["reap"] => LabByHand.Reap(),
        ["npgsql-idlers", var dsn, var clients, var periods, var gap] => await NpgsqlIdlers.RunAsync(dsn, Number(clients), Number(periods), TimeSpan.FromSeconds(Number(gap))),
        _ => LabByHand.Usage(),
    };
}
catch (Exception e) when (e is InvalidOperationException or CommandFailedException or FileNotFoundException or TimeoutException)
{
    Console.Error.WriteLine($"sidecar-lab: {e.Message}");
    return 1;
}
